"""What a gateway knows of tenants' accounts: what Redis has told with its last answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from deployments.gateway.accounts.amounts import Ask, Counted, Reply, Scope
from weir.accounts import DAY_MS, MINUTE_MS, month_of
from weir.cost import Used

#: There is ample room for so many requests of the size that is asked for.
AMPLE: Final = 8
#: What was heard longer ago says nothing about how much room there is.
_STALE_MS: Final = MINUTE_MS


@dataclass(slots=True)
class _Tenant:
    heard_ms: int = 0
    month: int = 0
    spent_nano_usd: int = 0
    scopes: dict[str, Counted] = field(default_factory=dict)


class Known:
    """Of every tenant that was asked for. ``now_ms``: milliseconds since the epoch."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._tenants: dict[str, _Tenant] = {}

    def heard(self, ask: Ask, reply: Reply) -> None:
        """What Redis has told of a tenant."""
        known = self._tenants.setdefault(ask.tenant, _Tenant())
        known.heard_ms = reply.now_ms
        if ask.spending is not None:
            known.month = month_of(reply.now_ms // DAY_MS)
            known.spent_nano_usd = reply.spent_nano_usd
        for scope, counted in zip(ask.scopes, reply.counted, strict=False):
            known.scopes[scope.name] = counted

    def spent_nano_usd(self, tenant: str) -> int:
        """In this month, reservations included."""
        known = self._tenants.get(tenant)
        if known is None or known.month != month_of(self._now_ms() // DAY_MS):
            return 0
        return known.spent_nano_usd

    def used(self, tenant: str, scope: str, bound: int) -> int:
        """What counts against one of :data:`.amounts.BOUNDS` now, reservations included."""
        known = self._tenants.get(tenant)
        counted = known.scopes.get(scope) if known is not None else None
        if counted is None:
            return 0
        now_ms = self._now_ms()
        return _used(counted, bound, now_ms // MINUTE_MS, now_ms // DAY_MS)

    def ample(
        self,
        tenant: str,
        scopes: Sequence[Scope],
        most: Used,
        nano_usd: int,
        steps_nano_usd: Sequence[int],
        waiting: int,
    ) -> bool:
        """Whether the tenant is so far from all its bounds that a request of that size is all but
        sure to be granted. ``steps_nano_usd``: steps of its budget that would stop the request;
        ``waiting``: requests of the tenant that are not answered yet."""
        known, now_ms = self._tenants.get(tenant), self._now_ms()
        if known is None or now_ms - known.heard_ms > _STALE_MS:
            return False
        many = AMPLE * (waiting + 1)
        amounts = (many, many * most.prompt_tokens, many * most.output_tokens)
        minute, day = now_ms // MINUTE_MS, now_ms // DAY_MS
        for scope in scopes:
            counted = known.scopes.get(scope.name)
            if counted is None:
                return False
            for bound, limit in scope.limited:
                # Bound 6 is of requests, as 0 and 3 are.
                if _used(counted, bound, minute, day) + amounts[bound % 3] > limit:
                    return False
        if not steps_nano_usd:
            return True
        spent = self.spent_nano_usd(tenant)
        return all(spent + many * nano_usd <= step for step in steps_nano_usd)


def _used(counted: Counted, bound: int, minute: int, day: int) -> int:
    if bound < 3:
        return counted.minutely[bound] if counted.minute == minute else 0
    if bound < 6:
        return counted.daily[bound - 3] if counted.day == day else 0
    return counted.concurrent
