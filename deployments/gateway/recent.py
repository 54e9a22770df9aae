"""The requests that have ended lately: the last ones with all their legs, and sums by tenant, model
and class. A fold over what the request's record has anyway; bounded; without prompts and answers.

Per request it costs 8 µs (docs/dashboard.md). What takes longer, scoring the candidates of a
decision again, waits until somebody looks (:mod:`router.explaining`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from deployments.gateway.ending import Cause, Ending
from deployments.gateway.legs import Attempt, Leg
from deployments.gateway.record import Record
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


_Key = tuple[str, str, str]
_Explain = Callable[[], list[explaining.Candidate]]
_Unexplained = list[tuple[LegFacts, _Explain]]


class RecentRequests:
    """``clock`` is the loop's, ``wall_clock`` gives seconds since the epoch."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        kept: int = _KEPT,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._ended: deque[EndedRequest] = deque(maxlen=kept)
        # Refusals come by the hundred; they must not push out what was decided.
        self._refused: deque[EndedRequest] = deque(maxlen=max(1, kept // 4))
        self._unexplained: deque[_Unexplained] = deque(maxlen=_EXPLAINED)
        self._stretches: deque[tuple[int, dict[_Key, Sums]]] = deque(maxlen=STRETCHES)

    def add(self, record: Record, ending: Ending) -> None:
        """A request has ended."""
        now_s = self._clock()
        ahead_s = self._wall_clock() - now_s
        ended, unexplained = _fold(record, ending, ahead_s)
        (self._ended if any(a.legs for a in ended.attempts) else self._refused).append(ended)
        if unexplained:
            self._unexplained.append(unexplained)
        sums = self._sums_of(ended, int((now_s + ahead_s) * 1000))
        if sums is not None:
            _count(sums, ended, ending)

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


def _count(sums: Sums, ended: EndedRequest, ending: Ending) -> None:
    sums.requests += 1
    sums.failed += ending.cause is Cause.FAILED
    sums.refused += ending.cause is Cause.REFUSED
    sums.prompt_tokens += ended.prompt_tokens
    sums.cached_tokens += ended.cached_tokens
    sums.output_tokens += ended.output_tokens
    sums.nano_usd += ended.nano_usd
    for attempt in ended.attempts:
        sums.moved += sum(1 for leg in attempt.legs if leg.loss)
        if attempt.spill and attempt.outcome == "shown":
            sums.spills[attempt.spill] = sums.spills.get(attempt.spill, 0) + 1
    if ending.ttft_met is not None:
        sums.ttft_met += ending.ttft_met
        sums.ttft_missed += not ending.ttft_met
    if ending.tpot_met is not None:
        sums.tpot_met += ending.tpot_met
        sums.tpot_missed += not ending.tpot_met


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


def _fold(record: Record, ending: Ending, ahead_s: float) -> tuple[EndedRequest, _Unexplained]:
    arrival_s, request, counts = record.arrival_s, record.request, ending.counts
    unexplained: _Unexplained = []
    attempts = [_attempt(attempt, arrival_s, unexplained) for attempt in record.attempts]
    ended = EndedRequest(
        record.serial,
        record.id,
        record.tenant,
        record.endpoint,
        ending.priority_class,
        record.model,
        ending.status,
        ending.code,
        int((arrival_s + ahead_s) * 1000),
        _after(ending.at_s, arrival_s),
        _milliseconds(ending.ttft_s),
        _milliseconds(ending.tpot_s),
        counts.prompt_tokens,
        counts.cached_tokens,
        counts.output_tokens,
        ending.nano_usd,
        request is not None and request.batch is not None,
        attempts,
    )
    return ended, unexplained


def _attempt(attempt: Attempt, arrival_s: float, unexplained: _Unexplained) -> AttemptFacts:
    outcome = "shown" if attempt.shown else "doubtful" if attempt.doubtful else "dropped"
    admitted_s = attempt.admitted_s
    return AttemptFacts(
        attempt.step.model,
        attempt.adapter.id if attempt.adapter is not None else "",
        attempt.step.spill or "",
        outcome,
        None if admitted_s is None else _after(admitted_s, arrival_s),
        _milliseconds(attempt.waited_s),
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


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
