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

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from deployments.gateway.accounts.amounts import Reply, Scope, Spending
from weir.accounts import DAY_MS, MINUTE_MS
from weir.cost import usd_of

Pairs = list[tuple[bytes, bytes]]
WARNING: Final = b"x-weir-budget-warning"
_CENT: Final = Decimal("0.01")
#: What each of the bounds on requests and tokens is a bound of.
_KINDS: Final = ("requests", "tokens", "tokens") * 2
_ANTHROPIC_KINDS: Final = (
    ("requests",),
    ("tokens", "input-tokens"),
    ("tokens", "output-tokens"),
) * 2
_PARTS: Final = ("limit", "remaining", "reset")
_NAMES: Final = {
    kind: tuple(f"x-ratelimit-{part}-{kind}".encode() for part in _PARTS)
    for kind in ("requests", "tokens")
}
_ANTHROPIC_NAMES: Final = {
    kind: tuple(f"anthropic-ratelimit-{kind}-{part}".encode() for part in _PARTS)
    for kind in ("requests", "tokens", "input-tokens", "output-tokens")
}


class _Left(NamedTuple):
    """What is left of a bound, and when (milliseconds since the epoch) it is whole again."""

    remaining: int
    limit: int
    reset_ms: int


def quota_headers(family: str, scopes: Sequence[Scope], reply: Reply) -> Pairs:
    """``family``: whose API was asked (:class:`deployments.gateway.dialects.base.Dialect`)."""
    if len(reply.counted) != len(scopes):
        return []  # while Redis is away, nobody knows
    scarcest: dict[str, _Left] = {}
    for bound, left in _bounds(scopes, reply):
        _keep(scarcest, _KINDS[bound], left)
    pairs: Pairs = []
    for kind, left in scarcest.items():
        limit, remaining, reset = _NAMES[kind]
        pairs.append((limit, b"%d" % left.limit))
        pairs.append((remaining, b"%d" % left.remaining))
        pairs.append((reset, _duration(left.reset_ms - reply.now_ms)))
    return pairs + _anthropic(scopes, reply) if family == "anthropic" else pairs


def _anthropic(scopes: Sequence[Scope], reply: Reply) -> Pairs:
    scarcest: dict[str, _Left] = {}
    for bound, left in _bounds(scopes, reply):
        for kind in _ANTHROPIC_KINDS[bound]:
            _keep(scarcest, kind, left)
    pairs: Pairs = []
    for kind, left in scarcest.items():
        told = (b"%d" % left.limit, b"%d" % left.remaining, _moment(left.reset_ms))
        pairs += zip(_ANTHROPIC_NAMES[kind], told, strict=True)
    return pairs


def _bounds(scopes: Sequence[Scope], reply: Reply) -> Iterator[tuple[int, _Left]]:
    """Every bound on requests and tokens, by its number."""
    for scope, counted in zip(scopes, reply.counted, strict=True):
        minute_ms, day_ms = (counted.minute + 1) * MINUTE_MS, (counted.day + 1) * DAY_MS
        used = counted.minutely + counted.daily
        for bound, most in scope.limited:
            if bound < len(used):
                remaining = max(0, most - used[bound])
                yield bound, _Left(remaining, most, minute_ms if bound < 3 else day_ms)


def _keep(scarcest: dict[str, _Left], kind: str, left: _Left) -> None:
    """That of which least is left; of equals, that which is whole again last."""
    known = scarcest.get(kind)
    if (
        known is None
        or left.remaining < known.remaining
        or (left.remaining == known.remaining and left.reset_ms > known.reset_ms)
    ):
        scarcest[kind] = left


def budget_headers(spending: Spending, spent_nano_usd: int) -> Pairs:
    """A warning, once a step that says so is reached."""
    reached = [s for s in spending.steps if s.warn and spent_nano_usd >= s.nano_usd]
    if not reached:
        return []
    spent = usd_of(spent_nano_usd).quantize(_CENT)
    whole = usd_of(spending.nano_usd).normalize()
    told = f"step={reached[-1].percent}%; spent_usd={spent:f}; budget_usd={whole:f}"
    return [(WARNING, told.encode())]


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
