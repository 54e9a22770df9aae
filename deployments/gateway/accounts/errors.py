"""What a client is told when its tenant may not use more."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from deployments.gateway.accounts.amounts import NEVER_MS, Ask, Code, Reply
from weir.cost import usd_of
from weir.errors import AccountAwayError, InsufficientQuotaError, RateLimitError, WeirError
from weir.tenancy import Quotas

_FIELDS: Final = tuple(field.name for field in fields(Quotas))


class BudgetSpillError(RateLimitError):
    """So much of the budget is spent that the model's student is to answer."""


class NeverFitsError(RateLimitError):
    """The request needs more than the quota ever allows."""

    hopeless = True


def refusal_of(ask: Ask, reply: Reply) -> WeirError:
    """The error for a reservation that was not granted."""
    if reply.code == Code.AWAY:
        return AccountAwayError(
            "The tenant's quotas cannot be looked up now, and what is allowed meanwhile is used "
            "up.",
            retry_after_s=1.0,
        )
    if reply.code == Code.SPILLED:
        return BudgetSpillError("The model's student answers for this part of the budget.")
    if reply.code == Code.BUDGET:
        assert ask.spending is not None
        whole, spent = usd_of(ask.spending.nano_usd), usd_of(reply.spent_nano_usd)
        return InsufficientQuotaError(
            f"The budget of {whole:f} USD for this month does not allow the request, which may "
            f"cost {usd_of(ask.nano_usd).normalize():f} USD; {spent.normalize():f} USD are spent "
            "or reserved."
        )
    scope, name = ask.scopes[reply.scope], _FIELDS[reply.bound]
    most = scope.bounds[reply.bound]
    if reply.wait_ms >= NEVER_MS:
        amount = ask.of(scope.name)
        needs = amount.concurrent if reply.bound == 6 else amount[reply.bound % 3]
        return NeverFitsError(
            f"The request may need {needs}, and the quota {name}{scope.told} is {most}. A smaller "
            "limit of output tokens, or a shorter prompt, needs less."
        )
    return RateLimitError(
        f"The quota {name}{scope.told} ({most}) is used up.",
        retry_after_s=-(-reply.wait_ms // 1000),
    )
