"""weir's own: work now and foretold, and the cheapest replicas that do it.

1. Work is tokens to compute and to generate, counted at arrival, with what waits spread over
   ``drain_s``.
2. Room on top: ``headroom``, or what the past asks for: of the last ``checked_s``, how much more
   came until a replica asked for then would have served (:mod:`..forecast`); it was exceeded in a
   share ``risk`` of the times. With ``season_s`` the same time a season ago is believed as well.
   What was late raises it: once more than half of ``budget`` was late (a mean with a half-life of
   a day), ``gain`` of room comes on top for each further budget.
3. Work that may wait uses that room. More is got for it only when what its deadline needs, or what
   is left of batches needs by the ends of their windows, is more than the room; where prices change
   with the hour, only in the cheapest hours before that (:mod:`..hours`). What was got for it goes
   when those are over, without waiting.
4. The cheapest replicas over all pools are found (:mod:`..programme`), spilling to the student
   as a priced alternative. Of the share that was found, so much spills as the replicas that are
   ready do not do of the work without its room.
5. Up at once; down when less has been enough for ``down_after_s``, at once or over ``fade_s``
   (:mod:`..steady`), and not before those that stay can do the work.

Nothing is foretold by default (``season_s`` and ``checked_s`` are 0): ``weir bench autoscale`` has
the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.forecast import Forecast, foretell
from weir.autoscaling.hours import pace
from weir.autoscaling.programme import Answer, Risk, Work, cheapest, greedy, missing_work
from weir.autoscaling.registry import register
from weir.autoscaling.report import (
    Alternative,
    Decision,
    Explanation,
    ModelState,
    PoolState,
    Student,
)
from weir.autoscaling.steady import Needs, steadied

_STEP = 1.03
_REMEMBERED = 16_384
_HALF_LIFE_S = 86_400.0
_MOST_BUDGETS = 2.0
_HALVINGS = 12
_NOTHING = Work(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class WeirParams:
    """``season_s``: after how long demand is alike (0: no season). ``checked_s``: over how long the
    margin is learned (0: there is none). ``risk``: the share of times at which it may turn out too
    small. ``headroom``: at least so much room, as a share of the work that cannot wait.
    ``budget``: share of requests that may be late in the long run; ``gain``: room, as a share, for
    each budget by which more was late than half of it. ``down_after_s``, ``fade_s``: so long a need
    holds in full, and so long it then counts less and less. ``keep``, ``safety``: as in
    :class:`..programme.Risk`."""

    season_s: Annotated[float, Field(ge=0)] = 0.0
    checked_s: Annotated[float, Field(ge=0)] = 0.0
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    headroom: Annotated[float, Field(ge=0)] = 0.1
    budget: Annotated[float, Field(gt=0, lt=1)] = 0.01
    gain: Annotated[float, Field(ge=0)] = 0.3
    drain_s: Annotated[float, Field(gt=0)] = 60.0
    down_after_s: Annotated[float, Field(ge=0)] = 1800.0
    fade_s: Annotated[float, Field(ge=0)] = 0.0
    keep: Annotated[float, Field(ge=0, le=1)] = 0.5
    safety: Annotated[float, Field(ge=0)] = 3.0


@register("weir", WeirParams)
class Weir:
    """Worth: measured by ``weir bench autoscale`` beside the peers and beside its reactive twin."""

    def __init__(self, params: WeirParams) -> None:
        self._params = params
        self._foretold: tuple[Any, Forecast] | None = None

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params = self._params
        lag_s = max((pool.start_s for pool in model.pools), default=0.0)
        now, ahead = self._present(model), self._ahead(model, lag_s)
        risk = Risk(params.keep, lag_s, params.safety)
        deferred, later = _deferred(model, now, now_s, risk)
        needs, lost, *urgent_needs = state or ((), None)
        lost = _late(model, now_s, lost)
        room = params.headroom + self._more_room(lost[1])
        work = _rounded(_needed(now, ahead, 1 + room, deferred), model)
        found = _solved(tuple(map(_as_offered, model.pools)), work, risk, model.student)
        if any(pool.usd_by_hour for pool in model.pools):
            plain = _rounded(_needed(now, ahead, 1 + room, _NOTHING), model)
            before = urgent_needs[0] if urgent_needs else needs
            urgent_needs = [self._urgent_needs(model, plain, risk, before, now_s)]
            # What was got for work that may wait goes with the cheap hours.
            needs = before if later and work == plain else needs
        taken, kept = self._steadied(model, needs, now_s, found)
        taken = _enough(model, taken, found, work, risk)
        targets = {p.name: min(p.most, max(p.least, taken.get(p.name, 0))) for p in model.pools}
        targets = _kept_until_replaced(model, targets, work)
        seen = {
            "computed_tokens_per_s": work.computed_tokens_per_s,
            "output_tokens_per_s": work.output_tokens_per_s,
            "late_lately": lost[1],
            "room": room,
            **_seen(ahead, now, found),
            **({"tokens_left_for_cheaper_hours": later} if later else {}),
        }
        spilt = _spilt(model, targets, now, found.spill_share)
        if model.student is not None:
            seen["spill_planned"], seen["spill_most"] = found.spill_share, model.student.most_share
        explanation = Explanation(seen, _because(found, targets), _others(model, work, risk, found))
        return Decision(targets, explanation, spilt, (kept, lost, *urgent_needs))

    def _urgent_needs(
        self, model: ModelState, work: Work, risk: Risk, before: Needs, now_s: float
    ) -> Needs:
        """What has been needed lately without work that may wait."""
        found = _solved(tuple(map(_as_offered, model.pools)), work, risk, model.student)
        return self._steadied(model, before, now_s, found)[1]

    def _steadied(
        self, model: ModelState, needs: Needs, now_s: float, found: Answer
    ) -> tuple[Mapping[str, int], Needs]:
        held_s, fade_s = self._params.down_after_s, self._params.fade_s
        return steadied(needs, now_s, found.targets, held_s, fade_s, _groups(model))

    def _more_room(self, late: float) -> float:
        over = late / self._params.budget - 0.5
        return self._params.gain * min(_MOST_BUDGETS, max(0.0, over))

    def _present(self, model: ModelState) -> Work:
        """What arrives and cannot wait for cheaper hours, and what of it waits, per second."""
        computed = output = requests = 0.0
        for demand in model.classes.values():
            if not demand.deferrable_s:
                drain_s = self._params.drain_s
                computed += demand.computed_tokens_per_s + demand.waiting_tokens / drain_s
                output += demand.output_tokens_per_s + demand.waiting_output_tokens / drain_s
                requests += demand.arrivals_per_s
        return Work(computed, output, requests)

    def _ahead(self, model: ModelState, lag_s: float) -> Forecast:
        params = self._params
        if not params.checked_s or not model.history:
            return Forecast(0.0, 0.0)
        if self._foretold is None or self._foretold[0] is not model.history:
            found = foretell(model.history, lag_s, params.season_s, params.risk, params.checked_s)
            self._foretold = model.history, found
        return self._foretold[1]


def _deferred(model: ModelState, now: Work, now_s: float, risk: Risk) -> tuple[Work, float]:
    """Of what may wait: the tokens per second that its deadlines need now, and the tokens that are
    left for cheaper hours."""

    def paced(prompts: float, answers: float, within_s: float) -> tuple[Work, float]:
        part = pace(model.pools, Work(prompts, answers), within_s, now_s, now, risk)
        return Work(part * prompts, part * answers), 0.0 if part else prompts + answers

    waiting = [
        paced(each.waiting_tokens, each.waiting_output_tokens, each.deferrable_s)
        for each in model.classes.values()
        if each.deferrable_s
    ]
    # Each window has what ends before it, so the one that needs most decides.
    windows = [
        paced(each.computed_tokens, each.output_tokens, each.left_s)
        for each in model.backlog.windows
    ]
    computed = sum(work.computed_tokens_per_s for work, _ in waiting)
    output = sum(work.output_tokens_per_s for work, _ in waiting)
    computed += max((work.computed_tokens_per_s for work, _ in windows), default=0.0)
    output += max((work.output_tokens_per_s for work, _ in windows), default=0.0)
    later = sum(left for _, left in waiting) + max((left for _, left in windows), default=0.0)
    return Work(computed, output), later


@lru_cache(maxsize=_REMEMBERED)
def _solved(
    pools: tuple[PoolState, ...], work: Work, risk: Risk, student: Student | None
) -> Answer:
    """The same question comes again and again while demand stands still."""
    return cheapest(pools, work, risk, student)


@lru_cache(maxsize=_REMEMBERED)
def _alone(pools: tuple[PoolState, ...], work: Work, risk: Risk) -> Answer:
    return greedy(pools, work, risk)


def _as_offered(pool: PoolState) -> PoolState:
    """Without what changes from moment to moment and does not bear on the question."""
    return PoolState(
        pool.name,
        pool.capacity,
        pool.usd_per_hour,
        pool.role,
        pool.accelerator,
        pool.region,
        pool.market,
        least=pool.least,
        most=pool.most,
        interruptions_per_hour=pool.interruptions_per_hour,
    )


def _late(
    model: ModelState, now_s: float, before: tuple[float, float] | None
) -> tuple[float, float]:
    """When, and which share of the requests that cannot wait has been late, older ones counting
    half as much for each day."""
    urgent = [demand for demand in model.classes.values() if not demand.deferrable_s]
    rate = sum(demand.arrivals_per_s for demand in urgent)
    missed = sum((1 - min(d.ttft_met, d.tpot_met)) * d.arrivals_per_s for d in urgent)
    if before is None:
        return now_s, 0.0
    if not rate:
        return now_s, before[1]
    keep = 0.5 ** ((now_s - before[0]) / _HALF_LIFE_S)
    return now_s, keep * before[1] + (1 - keep) * missed / rate


def _kept_until_replaced(
    model: ModelState, targets: Mapping[str, int], work: Work
) -> dict[str, int]:
    """No replica goes while those that would be left and are ready cannot do the work: one kind
    is exchanged for another only when the other serves."""
    left = {pool.name: min(pool.ready, targets[pool.name]) for pool in model.pools}
    if left == {pool.name: pool.ready for pool in model.pools}:
        return dict(targets)
    if missing_work(model.pools, left, work, Risk(keep=0.0)) <= 0:
        return dict(targets)
    return {p.name: min(p.most, max(p.ready, targets[p.name])) for p in model.pools}


def _groups(model: ModelState) -> list[dict[str, float]]:
    """Pools of one role can do each other's work. What costs nothing counts all the same."""
    groups: dict[str, dict[str, float]] = {}
    for pool in model.pools:
        groups.setdefault(pool.role, {})[pool.name] = pool.usd_per_hour or 1.0
    return list(groups.values())


def _enough(
    model: ModelState, taken: Mapping[str, int], found: Answer, work: Work, risk: Risk
) -> Mapping[str, int]:
    """What cost most lately may not be what the present mix of prompts and answers needs."""
    counts = {pool.name: taken.get(pool.name, 0) for pool in model.pools}
    if counts == found.targets or found.short or found.exposed or found.spill_share:
        return taken
    if missing_work(model.pools, counts, work, risk) <= 1e-6:
        return taken
    return {name: max(count, found.targets.get(name, 0)) for name, count in counts.items()}


def _needed(now: Work, ahead: Forecast, factor: float, deferred: Work) -> Work:
    """What cannot wait with its room, or with what may wait in that room, whichever is more."""
    factor = max(factor, ahead.upper)
    computed = max(now.computed_tokens_per_s, ahead.computed_tokens_per_s) * factor
    output = max(now.output_tokens_per_s, ahead.output_tokens_per_s) * factor
    return Work(
        max(computed, now.computed_tokens_per_s + deferred.computed_tokens_per_s),
        max(output, now.output_tokens_per_s + deferred.output_tokens_per_s),
        now.requests_per_s,
    )


def _rounded(work: Work, model: ModelState) -> Work:
    """Prompts in steps, answers in steps of their ratio to prompts, which changes little, and
    requests likewise; noise then asks no new question of the programme."""
    prompts, output = _stepped(work.computed_tokens_per_s), work.output_tokens_per_s
    answers = prompts * _stepped(output / prompts) if prompts else _stepped(output)
    if not prompts or model.student is None:
        return Work(prompts, answers)
    return Work(prompts, answers, prompts * _stepped(work.requests_per_s / prompts))


def _stepped(value: float) -> float:
    """Rounded up to a power of 1.03, so that noise asks no new question."""
    return _STEP ** math.ceil(math.log(value, _STEP)) if value > 0 else 0.0


def _spilt(model: ModelState, targets: Mapping[str, int], now: Work, planned: float) -> float:
    """The least share, up to the planned one, without which the replicas that are ready and stay
    do the present work."""
    counts = {pool.name: min(pool.ready, targets[pool.name]) for pool in model.pools}
    alone = Risk(keep=0.0)

    def fits(share: float) -> bool:
        left = Work((1 - share) * now.computed_tokens_per_s, (1 - share) * now.output_tokens_per_s)
        return missing_work(model.pools, counts, left, alone) <= 0

    low, high = 0.0, planned
    if not planned or fits(low):
        return 0.0
    if not fits(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _seen(ahead: Forecast, now: Work, found: Answer) -> dict[str, float]:
    """Figures of the forecast and of the programme."""
    computed = now.computed_tokens_per_s
    return {
        "foretold_over_now": ahead.computed_tokens_per_s / computed if computed else 1.0,
        "forecast_error": -1.0 if ahead.error is None else ahead.error,
        "usd_per_hour": found.usd_per_hour,
        "short": found.short,
    }


def _because(found: Answer, targets: Mapping[str, int]) -> str:
    if found.short:
        return f"everything that may be started; {found.short:.0%} of the work cannot be done"
    kept = any(targets[name] > wanted for name, wanted in found.targets.items())
    text = "the cheapest replicas that do the work"
    if found.exposed:
        text += " (not if a place is lost: there is no way)"
    if found.spill_share:
        text += f", up to {found.spill_share:.1%} of the requests by the student"
    return text + ("; some are kept for a while" if kept else "")


def _others(model: ModelState, work: Work, risk: Risk, found: Answer) -> tuple[Alternative, ...]:
    """The same with one kind of market only, and without the student."""
    others = []
    if found.spill_share:
        plain = _solved(tuple(map(_as_offered, model.pools)), work, risk, None)
        verdict = "without the student: "
        verdict += f"{plain.short:.0%} of the work undone" if plain.short else "dearer"
        others.append(Alternative(plain.targets, plain.usd_per_hour, verdict))
    for market in ("on_demand", "spot"):
        pools = tuple(pool for pool in model.pools if pool.market == market)
        if pools and len(pools) < len(model.pools):
            alone = _alone(tuple(map(_as_offered, pools)), work, risk)
            short = f"{alone.short:.0%} of the work undone" if alone.short else "dearer"
            if alone.short or alone.usd_per_hour > found.usd_per_hour:
                named = f"{market.replace('_', ' ')} only: {short}"
                others.append(Alternative(alone.targets, alone.usd_per_hour, named))
    return tuple(others)
