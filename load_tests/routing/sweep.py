"""Every system at every load, on one trace and fleet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from load_tests.peers.oracle import pooled_hit_rate
from load_tests.report import median
from load_tests.sim.figures import Slo
from load_tests.sim.run import Clock, Saturation, measure_saturation, run_at
from load_tests.sim.world import FleetConfig
from load_tests.systems import ENTRIES, Factory
from load_tests.traces import Trace


@dataclass(frozen=True, slots=True)
class Scenario:
    """A trace on a fleet."""

    trace: Trace
    fleet: FleetConfig

    @property
    def title(self) -> str:
        """For tables and pictures."""
        return f"{self.trace.name.split('.')[0]} × {self.fleet.replicas}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is swept, the same for all scenarios."""

    loads: tuple[float, ...]
    systems: tuple[str, ...]
    slo: Slo
    clock: Clock
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One system at one load. ``best_hit_rate``: the highest of a family's members (a family
    is shown by its member of highest goodput)."""

    scenario: Scenario
    load: float
    system: str
    kind: str
    figures: dict[str, Any]
    best_hit_rate: float
    simulated_per_min: float
    member: str

    def row(self) -> dict[str, Any]:
        """The report's row."""
        return {
            "table": f"{self.scenario.title}, load {self.load:g}",
            "load": self.load,
            "system": self.system,
            **{key: self.figures[key] for key in IN_TABLE if self.figures.get(key) is not None},
            **({"member": self.member} if self.kind == "bound" else {}),
        }


SHOWN = (
    "goodput_req_per_s",
    "good_share",
    "ttft_p50_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "tpot_p50_ms",
    "tpot_p99_ms",
    "hit_rate",
    "imbalance_max_over_mean",
    "shed_share",
    "offered_req_per_s",
)
IN_TABLE = (
    "goodput_req_per_s",
    "ttft_p50_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "tpot_p50_ms",
    "hit_rate",
    "best_hit_rate",
    "pooled_hit_rate",
    "imbalance_max_over_mean",
)


def sweep(scenario: Scenario, plan: Plan) -> Iterator[Cell]:
    """All cells of a scenario, load by load; progress goes to standard error."""
    saturation = measure_saturation(scenario.trace, scenario.fleet, plan.clock, plan.seeds[0])
    pooled = _pooled(scenario)
    for load in plan.loads:
        _say(f"{scenario.title}: load {load:g} of {saturation.req_per_s:.2f} req/s")
        for name in plan.systems:
            entry = ENTRIES[name]
            members = [_cell(scenario, plan, saturation, load, name, f) for f in entry.factories]
            best = max(members, key=lambda cell: cell.figures["goodput_req_per_s"])
            hit = max(cell.figures["hit_rate"] for cell in members)
            figures = dict(best.figures)
            if entry.kind == "bound":
                figures["best_hit_rate"] = hit
                if pooled is not None:
                    figures["pooled_hit_rate"] = pooled
            yield Cell(
                scenario,
                load,
                name,
                entry.kind,
                figures,
                hit,
                best.simulated_per_min,
                best.member,
            )


def _cell(
    scenario: Scenario,
    plan: Plan,
    saturation: Saturation,
    load: float,
    name: str,
    factory: Factory,
) -> Cell:
    outcomes = [
        run_at(
            factory(plan.slo),
            scenario.trace,
            scenario.fleet,
            saturation,
            load,
            plan.slo,
            plan.clock,
            seed,
        )
        for seed in plan.seeds
    ]
    figures = {key: median(_known(outcomes, key)) for key in SHOWN}
    requests = sum(len(outcome.world.requests) for outcome in outcomes)
    speed = requests / sum(outcome.wall_s for outcome in outcomes) * 60
    member = outcomes[0].world.system.name
    kind = ENTRIES[name].kind
    return Cell(scenario, load, name, kind, figures, figures["hit_rate"] or 0.0, speed, member)


def _known(outcomes: list[Any], key: str) -> list[float]:
    values = (outcome.figures[key] for outcome in outcomes)
    return [value for value in values if value is not None]


def _pooled(scenario: Scenario) -> float | None:
    """The bound of one cache for all; the order of a closed loop's requests is not the file's."""
    if scenario.trace.closed_loop:
        return None
    fleet = scenario.fleet
    blocks = fleet.engine.blocks * fleet.replicas
    return pooled_hit_rate(scenario.trace.requests, blocks, fleet.engine.block_size)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
