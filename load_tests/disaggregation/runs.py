"""One run, and its row."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from load_tests.disaggregation.fleets import Contender
from load_tests.disaggregation.traffic import Traffic
from load_tests.report import median
from load_tests.sim.figures import ClassSlos
from load_tests.sim.request import SimRequest
from load_tests.sim.run import Clock, Outcome, Saturation, measure_saturation, run_at
from load_tests.sim.world import FleetConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """Loads in multiples of what the all-mixed fleet can do; one run per seed, medians."""

    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    clock: Clock


def rows_of(
    traffic: Traffic, contenders: Sequence[Contender], fleet: FleetConfig, plan: Plan
) -> list[dict[str, Any]]:
    """A row per load and contender."""
    saturation = measure_saturation(traffic.trace, fleet, plan.clock, plan.seeds[0])
    return [
        _row(traffic, contender, fleet, saturation, load, plan)
        for load in plan.loads
        for contender in contenders
    ]


def _row(
    traffic: Traffic,
    contender: Contender,
    fleet: FleetConfig,
    saturation: Saturation,
    load: float,
    plan: Plan,
) -> dict[str, Any]:
    shaped = replace(fleet, roles=contender.roles(fleet.replicas))
    runs = [_run(traffic, contender, shaped, saturation, load, plan, s) for s in plan.seeds]
    row: dict[str, Any] = {
        "table": f"{traffic.name}, load {load:g}",
        "system": contender.name,
        "traffic": traffic.name,
        "load": load,
        "kind": contender.kind,
    }
    for key, value in runs[0].items():
        row[key] = median(run[key] for run in runs) if isinstance(value, float) else value
    goodput = row["goodput_req_per_s"]
    print(
        f"{row['table']}: {contender.name}: {goodput:.3f} good req/s of "
        f"{row['offered_req_per_s']:.3f}, split {row['split_share']:.2f}, "
        f"TTFT {row['ttft_p50_ms']:.0f}/{row['ttft_p99_ms']:.0f} "
        f"TPOT {row['tpot_p50_ms']:.1f}/{row['tpot_p99_ms']:.1f} hit {row['hit_rate']:.2f}",
        file=sys.stderr,
        flush=True,
    )
    return row


def _run(
    traffic: Traffic,
    contender: Contender,
    fleet: FleetConfig,
    saturation: Saturation,
    load: float,
    plan: Plan,
    seed: int,
) -> dict[str, Any]:
    judge = ClassSlos(traffic.slos)
    system = contender.system(traffic, fleet.timing)
    outcome = run_at(system, traffic.trace, fleet, saturation, load, judge, plan.clock, seed)
    done = [request for request in outcome.world.requests if request.first_token_s is not None]
    split = sum(1 for request in done if request.paired) / max(1, len(done))
    return {**outcome.figures, "split_share": split, **_by_class(outcome, judge, traffic)}


def _by_class(outcome: Outcome, judge: ClassSlos, traffic: Traffic) -> dict[str, float]:
    if len(traffic.slos) < 2:
        return {}
    shares = {}
    for name in traffic.slos:
        of_class: list[SimRequest] = [
            request for request in outcome.world.requests if request.trace.priority_class == name
        ]
        good = sum(1 for request in of_class if judge.met(request))
        shares[f"good_share_{name}"] = good / max(1, len(of_class))
    return shares
