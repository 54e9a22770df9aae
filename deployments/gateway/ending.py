"""How a request ended: judged once, from its record, by a pure function.

Everything that is told of an end reads this one value: the ledger, the bill, the metrics and their
objectives, demand, the dashboard's page, traces, and the judge of candidate versions
(:mod:`deployments.gateway.ends` is the list). What is not judged is None, so that each of them
counts what it is given and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from deployments.gateway.legs import Attempt, billed
from deployments.gateway.outputs import Counts
from deployments.gateway.pricing import PriceLists, used_of
from deployments.gateway.record import Record
from weir.cost import Used


class Cause(StrEnum):
    """Why a request ended. ``ANSWERED``: its answer is complete. ``FAILED``: by the platform's
    fault. ``REFUSED``: for what it asks, or for its tenant's limits. ``LEFT``: its client left
    before its answer was complete."""

    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class ClassLimits:
    """Limits of each priority class that has one, in seconds: of the time to the first token, and
    of the mean time per later token."""

    ttft_s: Mapping[str, float] = field(default_factory=dict)
    tpot_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Paid:
    """What the tenant pays for of one attempt."""

    attempt: Attempt
    counts: Counts
    used: Used
    nano_usd: int


class Ending(msgspec.Struct, frozen=True):
    """How a request ended, ``at_s`` on the loop's clock: right before its client got the last of
    its answer or of an error, or when it had left.

    ``status``: as the client saw it (0: it had left before). ``code``: of the error, for metrics;
    empty for an answer without one. ``answered``: the attempt of whose output the client was sent
    something, with its ``counts``. ``paid``: what the tenant pays for, ``nano_usd`` in all.

    ``ttft_s`` and ``tpot_s`` (mean time per token after the first, of the longest choice) are those
    of a complete answer; an answer of one token has no TPOT. ``late``: at the end, or with its
    first output if it came to one, the request was older than its class's limit of the TTFT.
    ``ttft_met``: whether the first token came within that limit; an answer that broke off has
    missed it, unless its client left. ``tpot_met``: the same of the TPOT, of complete answers. Both
    are None where the class has no limit, or the client was sent nothing.
    """

    at_s: float
    status: int
    cause: Cause
    code: str = ""
    priority_class: str = ""
    answered: Attempt | None = None
    counts: Counts = Counts()
    ttft_s: float | None = None
    tpot_s: float | None = None
    late: bool = False
    ttft_met: bool | None = None
    tpot_met: bool | None = None
    paid: tuple[Paid, ...] = ()
    nano_usd: int = 0

    def is_paid(self, attempt: Attempt) -> bool:
        """Whether the tenant pays for the attempt."""
        return any(each.attempt is attempt for each in self.paid)


def judge(
    record: Record, status: int, at_s: float, limits: ClassLimits, prices: PriceLists
) -> Ending:
    """How a request ended that ends now. ``status``: as the client sees it (0: it had left)."""
    request = record.request
    priority = request.priority_class if request is not None else ""
    cause, code = _cause(record)
    last = record.attempts[-1] if record.attempts else None
    first_s = last.first_output_s if last is not None else None
    waited_s = (at_s if first_s is None else first_s) - record.arrival_s
    limit_s = limits.ttft_s.get(priority)
    late = limit_s is not None and waited_s > limit_s
    paid = _paid(record, prices)
    nano_usd = sum([each.nano_usd for each in paid])
    # Once anything was sent, no other attempt begins: only the last one can have been shown.
    if last is None or not last.shown or not last.choices:
        return Ending(at_s, status, cause, code, priority, late=late, paid=paid, nano_usd=nano_usd)
    counts = last.counts
    ttft_s, tpot_s, ttft_met, tpot_met = None, None, None, None
    if limit_s is not None:
        ttft_met = first_s is not None and not late and record.error is None
    if first_s is not None and cause is Cause.ANSWERED:
        ttft_s, tpot_s = waited_s, _tpot_s(last, counts, at_s - first_s)
        limit_s = limits.tpot_s.get(priority)
        if tpot_s is not None and limit_s is not None:
            tpot_met = tpot_s <= limit_s
    return Ending(
        at_s, status, cause, code, priority, last, counts,
        ttft_s, tpot_s, late, ttft_met, tpot_met, paid, nano_usd,
    )  # fmt: skip


def _cause(record: Record) -> tuple[Cause, str]:
    error = record.error
    if record.client_left:
        return Cause.LEFT, "client_gone"
    if error is None:
        return Cause.ANSWERED, ""
    return (Cause.FAILED if error.status >= 500 else Cause.REFUSED), error.code or error.type


def _tpot_s(attempt: Attempt, counts: Counts, decoded_s: float) -> float | None:
    longest = counts.output_tokens
    if len(attempt.choices) > 1:
        longest = max(len(choice.tokens) for choice in attempt.choices)
    return decoded_s / (longest - 1) if longest > 1 else None


def _paid(record: Record, prices: PriceLists) -> tuple[Paid, ...]:
    request = record.request
    if request is None:
        return ()
    paid = []
    for attempt, counts in billed(record.attempts, record.client_left):
        used = used_of(attempt, counts)
        nano_usd = prices.nano_usd(request, attempt, used)
        paid.append(Paid(attempt, counts, used, nano_usd))
    return tuple(paid)
