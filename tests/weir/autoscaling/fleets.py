"""Fleets for tests of autoscaling policies."""

from dataclasses import replace

from weir.autoscaling.report import Capacity, Demand, ModelState, PoolState, Sample

SMALL = PoolState("small", Capacity(15_000, 4_000), 1.2, accelerator="L40S", most=200)
LARGE = PoolState("large", Capacity(40_000, 12_000), 3.0, accelerator="H100", most=200)
SPOT_A = replace(
    LARGE, name="spot-a", usd_per_hour=1.2, market="spot", region="a", interruptions_per_hour=0.05
)
SPOT_B = replace(SPOT_A, name="spot-b", region="b")


def model(tokens_per_s=30_000.0, pools=(LARGE,), counts=None, **more):
    """Demand of so many prompt tokens a second, a fifth of it generated; ``counts``: ready."""
    counts = counts or {}
    demand = Demand(
        tokens_per_s / 500,
        tokens_per_s,
        tokens_per_s / 5,
        **{
            name: more.pop(name)
            for name in list(more)
            if name.startswith(("waiting", "ttft_p", "tpot_p"))
        },
    )
    ready = tuple(replace(pool, ready=counts.get(pool.name, 0)) for pool in pools)
    history = tuple(Sample(120.0 * n, tokens_per_s, tokens_per_s / 5) for n in range(40))
    return ModelState("m", {"interactive": demand}, ready, history=history, **more)
