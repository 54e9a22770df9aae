"""What the settings say to the autoscaler of models and pools."""

from __future__ import annotations

from deployments.pools import Pool, pools_of, runs
from weir.autoscaling.collecting import ModelPlan, PoolPlan
from weir.autoscaling.report import Capacity, PoolState, Student
from weir.cost import replica_usd_by_hour
from weir.settings import ModelSettings, Settings

#: Replicas without a price cost something all the same: else any number would be as cheap.
_LEAST_USD_PER_HOUR = 0.001
_TTFT_SLO_S = 10.0
_TPOT_SLO_S = 0.1
_DEFERRABLE_S = 3600.0


def scaling_plans(settings: Settings) -> tuple[ModelPlan, ...]:
    """Of the models that scale, or whose roles follow the demand; pools of a fixed number count
    with that number."""
    return tuple(plan for model in settings.models if (plan := _plan(model, settings)) is not None)


def _plan(model: ModelSettings, settings: Settings) -> ModelPlan | None:
    pools = [pool for pool in pools_of(model) if runs(pool.model)]
    if not any(pool.model.autoscaling or pool.splits for pool in pools):
        return None
    classes = settings.admission.classes
    ttft = [c.ttft_slo_ms / 1000 for c in classes if c.ttft_slo_ms]
    tpot = [c.tpot_slo_ms / 1000 for c in classes if c.tpot_slo_ms]
    deferrable = {
        c.name: c.deadline_s or c.max_wait_s or _DEFERRABLE_S for c in classes if not c.ttft_slo_ms
    }
    return ModelPlan(
        model.name,
        tuple(_pool(model, pool, settings) for pool in pools),
        min(ttft, default=_TTFT_SLO_S),
        min(tpot, default=_TPOT_SLO_S),
        deferrable if ttft else {},
        _student(model),
    )


def _student(model: ModelSettings) -> Student | None:
    """None where nothing may be left to one."""
    if model.fallback is None or not model.fallback.capacity.enabled:
        return None
    spill = model.fallback.capacity
    if not spill.max_share or spill.usd_per_request is None:
        return None
    return Student(spill.usd_per_request, spill.max_share)


def _pool(model: ModelSettings, pool: Pool, settings: Settings) -> PoolPlan:
    own = next((each for each in model.pools if each.name == pool.name), None)
    bounds = pool.model.autoscaling
    prices = [
        max(_LEAST_USD_PER_HOUR, float(usd))
        for usd in replica_usd_by_hour(settings.prices, model, own)
    ]
    fixed = pool.model.replicas
    state = PoolState(
        name=pool.name or model.name,
        capacity=_capacity(pool.model),
        usd_per_hour=max(prices),
        usd_by_hour=tuple(prices) if len(set(prices)) > 1 else (),
        role=pool.role,
        accelerator=pool.model.accelerator or "cpu",
        region=(own.region if own else None) or settings.prices.region or "",
        market="spot" if pool.spot else "on_demand",
        least=bounds.min_replicas if bounds else fixed,
        most=bounds.max_replicas if bounds else fixed,
        start_s=bounds.capacity.start_s if bounds else 120.0,
        interruptions_per_hour=bounds.interruptions_per_hour if bounds else 0.0,
        splits=pool.splits,
    )
    begins_with = bounds.begins_with(fixed) if bounds else fixed
    learns = bounds is None or bounds.capacity.learned
    return PoolPlan(state, pool.deployment, bounds is not None, begins_with, learns)


def _capacity(served: ModelSettings) -> Capacity:
    bounds = served.autoscaling
    if bounds is None:
        return Capacity(4000.0, 1000.0)
    given = bounds.capacity
    return Capacity(given.prefill_tokens_per_s, given.decode_tokens_per_s, given.usable)
