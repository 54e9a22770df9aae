"""weir's own: work now and foretold, and the cheapest replicas that do it.

1. Work is tokens to compute and to generate, counted at arrival, with what waits spread over
   ``drain_s``.
2. What comes until a replica asked for now would serve is foretold (:mod:`..forecast`); its own
   past error is the margin. The work is the larger of now and then.
3. Work that may wait for cheaper hours gets what the others leave, and what its deadline needs.
4. The cheapest replicas over all pools are found (:mod:`..programme`), spilling to the student
   as a priced alternative.
5. Up at once; down when less has been enough for ``down_after_s`` (:mod:`..steady`).

With ``checked_s`` 0, the default, nothing is foretold. Forecasting has not been worth it: on
ServeGen's m-large, a third of it batch work, it cost 23 % more than its reactive twin at the same
share of requests in time (``weir bench autoscale``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.forecast import Forecast, foretell
from weir.autoscaling.programme import Answer, Risk, Work, cheapest, greedy
from weir.autoscaling.registry import register
from weir.autoscaling.report import Alternative, Decision, Explanation, ModelState
from weir.autoscaling.steady import steadied

_STEP = 1.02
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class WeirParams:
    """``season_s``: after how long demand is alike (a day; 0: no season). ``checked_s``: over how
    long the margin is learned (0: nothing is foretold). ``risk``: the share of forecasts that may
    turn out too low. ``headroom``: more than that, as a share.
    ``keep``, ``safety``: as in :class:`..programme.Risk`."""

    season_s: Annotated[float, Field(ge=0)] = 86_400.0
    checked_s: Annotated[float, Field(ge=0)] = 0.0
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.05
    headroom: Annotated[float, Field(ge=0)] = 0.05
    drain_s: Annotated[float, Field(gt=0)] = 60.0
    down_after_s: Annotated[float, Field(ge=0)] = 300.0
    keep: Annotated[float, Field(ge=0, le=1)] = 0.7
    safety: Annotated[float, Field(ge=0)] = 3.0


@register("weir", WeirParams)
class Weir:
    """Worth: measured by ``weir bench autoscale`` beside the peers and beside its reactive twin."""

    def __init__(self, params: WeirParams) -> None:
        self._params = params
        # The same question comes again and again while demand stands still.
        self._answers: dict[Any, Answer] = {}

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params = self._params
        lag_s = max((pool.start_s for pool in model.pools), default=0.0)
        now = self._present(model)
        ahead = self._ahead(model, lag_s)
        work = _larger(now, ahead, 1 + params.headroom)
        risk = Risk(params.keep, lag_s, params.safety)
        found = self._cheapest(model, work, risk)
        taken, kept = steadied(state or (), now_s, found.targets, params.down_after_s)
        targets = {pool.name: min(pool.most, taken.get(pool.name, 0)) for pool in model.pools}
        seen = {
            "computed_tokens_per_s": work.computed_tokens_per_s,
            "output_tokens_per_s": work.output_tokens_per_s,
            "foretold_over_now": _ratio(ahead, now),
            "forecast_error": -1.0 if ahead.error is None else ahead.error,
            "usd_per_hour": found.usd_per_hour,
            "short": found.short,
        }
        explanation = Explanation(seen, _because(found, targets), _others(model, work, risk, found))
        return Decision(targets, explanation, found.spill_share, kept)

    def _cheapest(self, model: ModelState, work: Work, risk: Risk) -> Answer:
        fixed = tuple(
            (p.name, p.capacity, p.usd_per_hour, p.least, p.most, p.interruptions_per_hour)
            for p in model.pools
        )
        question = (fixed, work, risk, model.student)
        if question not in self._answers:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            self._answers[question] = cheapest(model.pools, work, risk, model.student)
        return self._answers[question]

    def _present(self, model: ModelState) -> Work:
        """What arrives, and what waits, in tokens per second."""
        computed = output = requests = 0.0
        for demand in model.classes.values():
            drain_s = demand.deferrable_s or self._params.drain_s
            computed += demand.waiting_tokens / drain_s
            output += demand.waiting_output_tokens / drain_s
            if not demand.deferrable_s:
                computed += demand.computed_tokens_per_s
                output += demand.output_tokens_per_s
                requests += demand.arrivals_per_s
        return Work(computed, output, requests)

    def _ahead(self, model: ModelState, lag_s: float) -> Forecast:
        params = self._params
        if not params.checked_s or not model.history:
            return Forecast(0.0, 0.0)
        return foretell(model.history, lag_s, params.season_s, params.risk, params.checked_s)


def _larger(now: Work, ahead: Forecast, factor: float) -> Work:
    computed = max(now.computed_tokens_per_s, ahead.computed_tokens_per_s * ahead.upper)
    output = max(now.output_tokens_per_s, ahead.output_tokens_per_s * ahead.upper)
    prompts = _stepped(computed * factor)
    # Answers in steps of their ratio to prompts, which changes little, and requests likewise.
    answers = (
        prompts * _stepped(output * factor / prompts) if prompts else _stepped(output * factor)
    )
    requests = prompts * _stepped(now.requests_per_s / prompts) if prompts else 0.0
    return Work(prompts, answers, requests)


def _stepped(value: float) -> float:
    """Rounded up to a power of 1.02, so that noise asks no new question."""
    return _STEP ** math.ceil(math.log(value, _STEP)) if value > 0 else 0.0


def _ratio(ahead: Forecast, now: Work) -> float:
    if not now.computed_tokens_per_s:
        return 1.0
    return ahead.computed_tokens_per_s / now.computed_tokens_per_s


def _because(found: Answer, targets: Mapping[str, int]) -> str:
    if found.short:
        return f"everything that may be started; {found.short:.0%} of the work cannot be done"
    kept = any(targets[name] > wanted for name, wanted in found.targets.items())
    text = "the cheapest replicas that do the work"
    if found.exposed:
        text += " (not if a place is lost: there is no way)"
    if found.spill_share:
        text += f", {found.spill_share:.0%} of the requests by the student"
    return text + ("; some are kept for a while" if kept else "")


def _others(model: ModelState, work: Work, risk: Risk, found: Answer) -> tuple[Alternative, ...]:
    """The same with one kind of market only, and without the student."""
    others = []
    for market in ("on_demand", "spot"):
        pools = tuple(pool for pool in model.pools if pool.market == market)
        if pools and len(pools) < len(model.pools):
            alone = greedy(pools, work, risk)
            short = f"{alone.short:.0%} of the work undone" if alone.short else "dearer"
            if alone.short or alone.usd_per_hour > found.usd_per_hour:
                named = f"{market.replace('_', ' ')} only: {short}"
                others.append(Alternative(alone.targets, alone.usd_per_hour, named))
    return tuple(others)
