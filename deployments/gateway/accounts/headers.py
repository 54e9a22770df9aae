"""Headers that tell a client what is left of its tenant's quotas and budget.

OpenAI's names go with every answer, Anthropic's beside them where that API was asked:

=========================================  =====================================================
``x-ratelimit-limit-requests``             the bound, of requests or tokens, of which least is left
``x-ratelimit-remaining-requests``         what is left of it
``x-ratelimit-reset-requests``             when it is whole again, as in ``6m0s``
``x-ratelimit-…-tokens``                   the same, of prompt or output tokens
``anthropic-ratelimit-requests-…``         ``limit``, ``remaining`` and ``reset`` (RFC 3339)
``anthropic-ratelimit-…tokens-…``          ``tokens``, ``input-tokens`` and ``output-tokens``
``x-weir-budget-warning``                  the step of the budget that was reached
=========================================  =====================================================

What runs counts with what it may use at most, so more is left when it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from deployments.gateway.accounts.amounts import Reply, Scope, Spending
from weir.accounts import DAY_MS, MINUTE_MS
from weir.cost import usd_of

Pairs = list[tuple[bytes, bytes]]
WARNING: Final = b"x-weir-budget-warning"
_KINDS: Final = {"requests": (0, 3), "tokens": (1, 2, 4, 5)}
_ANTHROPIC: Final = {**_KINDS, "input-tokens": (1, 4), "output-tokens": (2, 5)}


class _Left(NamedTuple):
    """Ordered: of which least is left, and longest."""

    remaining: int
    not_before_ms: int
    limit: int

    @property
    def reset_ms(self) -> int:
        return -self.not_before_ms


def quota_headers(family: str, scopes: Sequence[Scope], reply: Reply) -> Pairs:
    """``family``: whose API was asked (:class:`deployments.gateway.dialects.base.Dialect`)."""
    if len(reply.counted) != len(scopes):
        return []  # while Redis is away, nobody knows
    pairs: Pairs = []
    for kind, bounds in _KINDS.items():
        left = _least(bounds, scopes, reply)
        if left is not None:
            reset = _duration(left.reset_ms - reply.now_ms)
            for what, told in (("limit", left.limit), ("remaining", left.remaining)):
                pairs.append((f"x-ratelimit-{what}-{kind}".encode(), b"%d" % told))
            pairs.append((f"x-ratelimit-reset-{kind}".encode(), reset))
    if family == "anthropic":
        for kind, bounds in _ANTHROPIC.items():
            left = _least(bounds, scopes, reply)
            if left is not None:
                head = f"anthropic-ratelimit-{kind}"
                pairs.append((f"{head}-limit".encode(), b"%d" % left.limit))
                pairs.append((f"{head}-remaining".encode(), b"%d" % left.remaining))
                pairs.append((f"{head}-reset".encode(), _moment(left.reset_ms)))
    return pairs


def budget_headers(spending: Spending, spent_nano_usd: int) -> Pairs:
    """A warning, once a step that says so is reached."""
    reached = [s for s in spending.steps if s.warn and spent_nano_usd >= s.nano_usd]
    if not reached:
        return []
    spent = usd_of(spent_nano_usd).quantize(usd_of(10**7))
    whole = usd_of(spending.nano_usd).normalize()
    told = f"step={reached[-1].percent}%; spent_usd={spent:f}; budget_usd={whole:f}"
    return [(WARNING, told.encode())]


def _least(bounds: Sequence[int], scopes: Sequence[Scope], reply: Reply) -> _Left | None:
    found: list[_Left] = []
    for scope, counted in zip(scopes, reply.counted, strict=True):
        for bound in bounds:
            most = scope.bounds[bound]
            if most >= 0:
                end_ms = (counted.day + 1) * DAY_MS
                if bound < 3:
                    end_ms = (counted.minute + 1) * MINUTE_MS
                found.append(_Left(max(0, most - counted.of(bound)), -end_ms, most))
    return min(found, default=None)


def _duration(ms: int) -> bytes:
    """As OpenAI writes it: ``1h2m3s``, or ``250ms`` below a second."""
    if ms < 1000:
        return b"%dms" % max(0, ms)
    seconds = -(-ms // 1000)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds


def _moment(ms: int) -> bytes:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
