"""The requests that have ended lately: the last ones with all their legs, and sums by tenant, model
and class. A fold over what the request's record has anyway; bounded; without prompts and answers.

Per request it costs 8 µs (docs/dashboard.md). What takes longer, scoring the candidates of a
decision again, waits until somebody looks (:mod:`router.explaining`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployments.gateway.legs import Attempt, Leg
from deployments.gateway.settle import Record
from deployments.live import (
    STRETCH_MS,
    STRETCHES,
    AttemptFacts,
    Candidate,
    EndedRequest,
    LegFacts,
    Row,
    Stretch,
    Sums,
)
from router import explaining

_KEPT = 256
_CANDIDATES = 6
#: Decisions that can still be explained: each holds the prompt's block hashes and what was seen.
_EXPLAINED = 64
#: Rows of one stretch. There are as many as tenants times models times classes.
_MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class ClassLimits:
    """Limits of each priority class that has one, in seconds."""

    ttft_s: Mapping[str, float]
    tpot_s: Mapping[str, float]


_Key = tuple[str, str, str]
_Explain = Callable[[], list[explaining.Candidate]]
_Unexplained = list[tuple[LegFacts, _Explain]]


class RecentRequests:
    """``clock`` is the loop's, ``wall_clock`` gives seconds since the epoch."""

    def __init__(
        self,
        limits: ClassLimits,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        kept: int = _KEPT,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._ended: deque[EndedRequest] = deque(maxlen=kept)
        # Refusals come by the hundred; they must not push out what was decided.
        self._refused: deque[EndedRequest] = deque(maxlen=max(1, kept // 4))
        self._unexplained: deque[_Unexplained] = deque(maxlen=_EXPLAINED)
        self._stretches: deque[tuple[int, dict[_Key, Sums]]] = deque(maxlen=STRETCHES)

    def add(self, record: Record, status: int) -> None:
        """A request has ended, and is settled. ``status``: as the client saw it (0: it had left
        before)."""
        now_s = self._clock()
        ahead_s = self._wall_clock() - now_s
        ended, unexplained = _fold(record, status, now_s, ahead_s)
        (self._ended if any(a.legs for a in ended.attempts) else self._refused).append(ended)
        if unexplained:
            self._unexplained.append(unexplained)
        sums = self._sums_of(ended, int((now_s + ahead_s) * 1000))
        if sums is not None:
            self._count(sums, ended)

    def ended(self) -> list[EndedRequest]:
        """The last ones that reached a replica, then the last ones that reached none; the oldest
        first in either."""
        for unexplained in self._unexplained:
            for leg, explain in unexplained:
                leg.candidates = best(explain())
        self._unexplained.clear()
        return [*self._ended, *self._refused]

    def stretches(self) -> list[Stretch]:
        """The sums of the last quarter of an hour."""
        first_ms = int(self._wall_clock() * 1000) - STRETCH_MS * STRETCHES
        return [
            Stretch(begun_ms, [Row(*key, sums) for key, sums in rows.items()])
            for begun_ms, rows in self._stretches
            if begun_ms >= first_ms
        ]

    def _sums_of(self, ended: EndedRequest, now_ms: int) -> Sums | None:
        begun_ms = now_ms - now_ms % STRETCH_MS
        if not self._stretches or self._stretches[-1][0] < begun_ms:
            self._stretches.append((begun_ms, {}))
        rows = self._stretches[-1][1]
        key = (ended.tenant, ended.model, ended.priority_class)
        sums = rows.get(key)
        if sums is None and len(rows) < _MOST_ROWS:
            sums = rows[key] = Sums()
        return sums

    def _count(self, sums: Sums, ended: EndedRequest) -> None:
        sums.requests += 1
        sums.failed += ended.status >= 500
        sums.refused += 400 <= ended.status < 500
        sums.prompt_tokens += ended.prompt_tokens
        sums.cached_tokens += ended.cached_tokens
        sums.output_tokens += ended.output_tokens
        sums.nano_usd += ended.nano_usd
        shown = False
        for attempt in ended.attempts:
            shown = shown or attempt.outcome == "shown"
            sums.moved += sum(1 for leg in attempt.legs if leg.loss)
            if attempt.spill and attempt.outcome == "shown":
                sums.spills[attempt.spill] = sums.spills.get(attempt.spill, 0) + 1
        if shown:
            self._judge(sums, ended)

    def _judge(self, sums: Sums, ended: EndedRequest) -> None:
        """An answer that ended with an error has missed its limits, as for the metrics."""
        limit_s = self._limits.ttft_s.get(ended.priority_class)
        if limit_s is not None:
            met = ended.ttft_ms is not None and ended.ttft_ms <= limit_s * 1000
            sums.ttft_met += met
            sums.ttft_missed += not met
        limit_s = self._limits.tpot_s.get(ended.priority_class)
        if limit_s is not None and (ended.tpot_ms is not None or ended.code):
            met = ended.tpot_ms is not None and ended.tpot_ms <= limit_s * 1000
            sums.tpot_met += met
            sums.tpot_missed += not met


def best(candidates: list[explaining.Candidate]) -> list[Candidate]:
    """The first few candidates of a decision, the cheapest first."""
    candidates.sort(key=lambda each: each.cost)
    return [
        Candidate(
            each.replica_id,
            round(each.cost, 3),
            each.prefill_tokens,
            each.decode_tokens,
            each.overlap_blocks,
        )
        for each in candidates[:_CANDIDATES]
    ]


def _fold(
    record: Record, status: int, now_s: float, ahead_s: float
) -> tuple[EndedRequest, _Unexplained]:
    arrival_s, request = record.arrival_s, record.request
    unexplained: _Unexplained = []
    attempts = [_attempt(attempt, arrival_s, unexplained) for attempt in record.attempts]
    shown = [a for a in record.attempts if a.shown and a.choices]
    ttft_ms, tpot_ms, prompt, cached, output = None, None, 0, 0, 0
    if shown:
        last = shown[-1]
        counts, first_s = last.counts, last.first_output_s
        prompt, cached, output = counts.prompt_tokens, counts.cached_tokens, counts.output_tokens
        if first_s is not None and not record.error_code:
            ttft_ms = _after(first_s, arrival_s)
            tpot_s = last.tpot_s(now_s)
            tpot_ms = None if tpot_s is None else round(tpot_s * 1000, 2)
    ended = EndedRequest(
        record.serial,
        record.id,
        record.tenant,
        record.endpoint,
        request.priority_class if request is not None else "",
        record.model,
        status,
        record.error_code,
        int((arrival_s + ahead_s) * 1000),
        _after(now_s, arrival_s),
        ttft_ms,
        tpot_ms,
        prompt,
        cached,
        output,
        record.nano_usd,
        request is not None and request.batch is not None,
        attempts,
    )
    return ended, unexplained


def _attempt(attempt: Attempt, arrival_s: float, unexplained: _Unexplained) -> AttemptFacts:
    outcome = "shown" if attempt.shown else "doubtful" if attempt.doubtful else "dropped"
    admitted_s, waited_s = attempt.admitted_s, attempt.waited_s
    return AttemptFacts(
        attempt.step.model,
        attempt.adapter.id if attempt.adapter is not None else "",
        attempt.step.spill or "",
        outcome,
        None if admitted_s is None else _after(admitted_s, arrival_s),
        None if waited_s is None else round(waited_s * 1000, 2),
        [
            _leg(choice.index, leg, arrival_s, unexplained)
            for choice in attempt.choices
            for leg in choice.legs
        ],
    )


def _leg(choice: int, leg: Leg, arrival_s: float, unexplained: _Unexplained) -> LegFacts:
    told, reservation = leg.told, leg.reservation
    made = LegFacts(
        choice,
        leg.replica_id,
        _after(leg.begun_s, arrival_s),
        _after(leg.ended_s, arrival_s),
        leg.prefill_id,
        told.prompt_tokens if told is not None else 0,
        told.cached_tokens if told is not None else 0,
        len(leg.tokens),
        "" if leg.loss.value == "none" else leg.loss.value,
    )
    if reservation is not None:
        decision = reservation.decision
        made.reason, made.held_blocks = decision.reason, decision.overlap_blocks
        if reservation.explain is not None:
            unexplained.append((made, reservation.explain))
    return made


def _after(at_s: float, arrival_s: float) -> float:
    return round((at_s - arrival_s) * 1000, 2)
