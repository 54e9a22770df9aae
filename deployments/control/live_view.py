"""One picture of all gateways' boards: for the operator, or of one tenant alone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.control.live_bodies import (
    AttemptBody,
    CandidateBody,
    ClassBody,
    FollowedBody,
    LegBody,
    QueueBody,
    RecentBody,
    ReplicaBody,
    SeriesBody,
    SpillBody,
)
from deployments.live import STRETCH_MS, STRETCHES, Board, EndedRequest, LegFacts, Row, Sums
from router.admission import AdmissionSettings
from weir.cost import usd_of
from weir.ledger.rates import FREE, Rates

#: Sums are of so many stretches, the one that is under way included.
_WINDOW = 10
WINDOW_S = _WINDOW * STRETCH_MS // 1000
_LISTED = 60
#: Of them at most so many that reached no replica, so that decisions are seen beside refusals.
_REFUSED = 20
# A stretch that has just begun says nothing of a rate.
_LEAST_S = 5.0


@dataclass(frozen=True)
class Picture:
    """What boards say together at ``now_ms``. ``tenant``: of that one only (None: of all)."""

    boards: Sequence[Board]
    now_ms: int
    tenant: str | None = None

    def rows(self, stretches: int) -> Iterator[tuple[int, Row]]:
        """The rows of the last stretches, each with the beginning of its stretch."""
        first_ms = self.now_ms - self.now_ms % STRETCH_MS - (stretches - 1) * STRETCH_MS
        for board in self.boards:
            for stretch in board.stretches:
                if first_ms <= stretch.begun_ms <= self.now_ms:
                    for row in stretch.rows:
                        if self.tenant in (None, row.tenant):
                            yield stretch.begun_ms, row

    def sums(self, key: Callable[[Row], Any]) -> dict[Any, Sums]:
        """Of the last minutes, by anything."""
        found: dict[Any, Sums] = {}
        for _, row in self.rows(_WINDOW):
            found.setdefault(key(row), Sums()).add(row.sums)
        return found

    def in_flight(self) -> Counter[str]:
        """Requests being served, by tenant."""
        found: Counter[str] = Counter()
        for board in self.boards:
            for tenant, count in board.in_flight.items():
                if self.tenant in (None, tenant):
                    found[tenant] += count
        return found

    def ended(self) -> list[EndedRequest]:
        """The last requests, the newest first."""
        found = [
            request
            for board in self.boards
            for request in board.recent
            if self.tenant in (None, request.tenant)
        ]
        found.sort(key=lambda request: request.arrived_ms + request.took_ms, reverse=True)
        return found

    def followed(self, wanted: str) -> list[EndedRequest]:
        """Those of an id, or of a serial."""
        return [request for request in self.ended() if wanted in (request.id, request.serial)]


def classes_of(picture: Picture, admission: AdmissionSettings) -> list[ClassBody]:
    """Every class of the settings that has a limit or an answer."""
    sums = picture.sums(lambda row: row.priority_class)
    found = []
    for each in admission.classes:
        own = sums.get(each.name, Sums())
        if each.ttft_slo_ms is None and each.tpot_slo_ms is None and not own.requests:
            continue
        found.append(
            ClassBody(
                priority_class=each.name,
                ttft_slo_ms=each.ttft_slo_ms,
                ttft_met=own.ttft_met,
                ttft_missed=own.ttft_missed,
                ttft_attained=_share(own.ttft_met, own.ttft_missed),
                tpot_slo_ms=each.tpot_slo_ms,
                tpot_met=own.tpot_met,
                tpot_missed=own.tpot_missed,
                tpot_attained=_share(own.tpot_met, own.tpot_missed),
            )
        )
    return found


def series_of(picture: Picture) -> SeriesBody:
    """The last quarter of an hour."""
    by_class: dict[int, dict[str, Sums]] = {}
    for begun_ms, row in picture.rows(STRETCHES):
        at = by_class.setdefault(begun_ms, {})
        at.setdefault(row.priority_class, Sums()).add(row.sums)
    last_ms = picture.now_ms - picture.now_ms % STRETCH_MS
    times = [last_ms - back * STRETCH_MS for back in range(STRETCHES - 1, -1, -1)]
    if (picture.now_ms - last_ms) / 1000 < _LEAST_S:
        times.pop()
    named = sorted({name for at in by_class.values() for name in at if name})
    whole = {at_ms: _total(by_class.get(at_ms, {}).values()) for at_ms in times}
    long_s = {at_ms: min(STRETCH_MS, picture.now_ms - at_ms) / 1000 for at_ms in times}
    return SeriesBody(
        step_s=STRETCH_MS / 1000,
        at_s=[at_ms / 1000 for at_ms in times],
        requests_per_s=[round(whole[at].requests / long_s[at], 3) for at in times],
        output_tokens_per_s=[round(whole[at].output_tokens / long_s[at], 2) for at in times],
        usd_per_hour=[round(whole[at].nano_usd * 3600 / long_s[at] / 1e9, 6) for at in times],
        attained={
            name: [
                _share(at.ttft_met, at.ttft_missed)
                for at in (by_class.get(at_ms, {}).get(name, Sums()) for at_ms in times)
            ]
            for name in named
        },
    )


def replicas_of(picture: Picture, rates: Rates) -> list[ReplicaBody]:
    """Each replica as the gateway knows it that has heard of it last; work from all gateways is in
    what each of them tells."""
    found: dict[str, ReplicaBody] = {}
    for board in picture.boards:
        for told in board.replicas:
            known = found.get(told.id)
            if known is not None and known.age_s <= told.age_s:
                continue
            rate = rates.get((told.model, told.pool), FREE).at(picture.now_ms / 1000)
            usd = usd_of(rate.nano_usd_per_hour) if rate.nano_usd_per_hour else None
            found[told.id] = ReplicaBody(
                id=told.id,
                model=told.model,
                pool=told.pool,
                role=told.role,
                kv_use=told.kv_use,
                running=told.running,
                waiting=told.waiting,
                outstanding_tokens=told.outstanding_tokens,
                age_s=told.age_s,
                mfu=told.mfu,
                mbu=told.mbu,
                usd_per_hour=None if usd is None else f"{usd:f}",
            )
    return sorted(found.values(), key=lambda each: (each.model, each.pool, each.id))


def queues_of(picture: Picture) -> list[QueueBody]:
    """What waits, by model and class, in all gateways together."""
    found: dict[tuple[str, str], QueueBody] = {}
    for board in picture.boards:
        for told in board.queues:
            key = (told.model, told.priority_class)
            queue = found.setdefault(
                key, QueueBody(model=key[0], priority_class=key[1], waiting=0, late=0)
            )
            queue.waiting += told.waiting
            queue.late += told.late
    return list(found.values())


def spills_of(picture: Picture) -> list[SpillBody]:
    """Spills of the last minutes, by model and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    for model, sums in picture.sums(lambda row: row.model).items():
        for reason, count in sums.spills.items():
            counts[model, reason] += count
    return [
        SpillBody(model=model, reason=reason, requests=count)
        for (model, reason), count in sorted(counts.items())
    ]


def recent_of(picture: Picture) -> list[RecentBody]:
    """The newest requests, in one line each."""
    operator, refused = picture.tenant is None, 0
    listed: list[RecentBody] = []
    for request in picture.ended():
        reached = any(attempt.legs for attempt in request.attempts)
        refused += not reached
        if (reached or refused <= _REFUSED) and len(listed) < _LISTED:
            listed.append(_recent(request, operator))
    return listed


def _recent(request: EndedRequest, operator: bool) -> RecentBody:
    shown = next((a for a in reversed(request.attempts) if a.outcome == "shown"), None)
    answered = "" if shown is None else shown.adapter or shown.model
    shown = shown or (request.attempts[-1] if request.attempts else None)
    leg = shown.legs[0] if shown is not None and shown.legs else None
    weighed = leg if operator else None
    own, other = _compared(weighed)
    return RecentBody(
        **_head(request),
        answered=answered,
        spill=shown.spill if shown is not None else "",
        moved=sum(1 for a in request.attempts for each in a.legs if each.loss),
        replica=leg.replica if leg is not None else "",
        prefill_replica=leg.prefill_replica if leg is not None else "",
        reason=leg.reason if leg is not None else "",
        held_blocks=leg.held_blocks if leg is not None else 0,
        candidates=len(weighed.candidates) if weighed is not None else 0,
        cost=own,
        next_cost=other,
        status=request.status,
    )


def _compared(leg: LegFacts | None) -> tuple[float | None, float | None]:
    """The cost of the replica that was chosen, and the least of another one."""
    if leg is None:
        return None, None
    own = [each.cost for each in leg.candidates if each.replica == leg.replica]
    others = [each.cost for each in leg.candidates if each.replica != leg.replica]
    return (own[0] if own else None), min(others, default=None)


def followed_body(request: EndedRequest, operator: bool) -> FollowedBody:
    """All legs. What was weighed tells of the load that all tenants make: it is the operator's."""
    return FollowedBody(
        **_head(request),
        status=request.status,
        source="gateway",
        batch=request.batch,
        attempts=[
            AttemptBody(
                model=attempt.model,
                adapter=attempt.adapter,
                spill=attempt.spill,
                outcome=attempt.outcome,
                admitted_ms=attempt.admitted_ms,
                waited_ms=attempt.waited_ms,
                legs=[_leg(leg, operator) for leg in attempt.legs],
            )
            for attempt in request.attempts
        ],
    )


def _leg(leg: LegFacts, operator: bool) -> LegBody:
    candidates = [
        CandidateBody(
            replica=each.replica,
            cost=each.cost,
            prefill_tokens=each.prefill_tokens,
            decode_tokens=each.decode_tokens,
            held_blocks=each.held_blocks,
        )
        for each in leg.candidates
    ]
    return LegBody(
        choice=leg.choice,
        replica=leg.replica,
        prefill_replica=leg.prefill_replica,
        begun_ms=leg.begun_ms,
        ended_ms=leg.ended_ms,
        prompt_tokens=leg.prompt_tokens,
        cached_tokens=leg.cached_tokens,
        output_tokens=leg.output_tokens,
        loss=leg.loss,
        reason=leg.reason,
        held_blocks=leg.held_blocks,
        candidates=candidates if operator else None,
    )


def _head(request: EndedRequest) -> Mapping[str, Any]:
    return {
        "serial": request.serial,
        "id": request.id,
        "tenant": request.tenant,
        "endpoint": request.endpoint,
        "priority_class": request.priority_class,
        "model": request.model,
        "code": request.code,
        "at_s": request.arrived_ms / 1000,
        "took_ms": request.took_ms,
        "ttft_ms": request.ttft_ms,
        "tpot_ms": request.tpot_ms,
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "output_tokens": request.output_tokens,
        "usd": f"{usd_of(request.nano_usd):f}",
    }


def _total(listed: Any) -> Sums:
    whole = Sums()
    for sums in listed:
        whole.add(sums)
    return whole


def total_of(picture: Picture) -> Sums:
    """Everything in the last minutes."""
    return _total(picture.sums(lambda row: row.priority_class).values())


def _share(met: int, missed: int) -> float | None:
    return round(met / (met + missed), 4) if met + missed else None
