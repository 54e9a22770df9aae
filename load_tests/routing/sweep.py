"""Every system at every load, on one trace and fleet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from load_tests.peers.oracle import pooled_hit_rate
from load_tests.report import median
from load_tests.routing.kept import KeptRuns, Run, run_key
from load_tests.sim.figures import Slo
from load_tests.sim.run import Clock, Saturation, measure_saturation, run_at
from load_tests.sim.world import FleetConfig
from load_tests.systems import ENTRIES
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
    kept: KeptRuns = field(default_factory=KeptRuns)


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
    saturation = _saturation(scenario, plan)
    pooled = _pooled(scenario)
    for load in plan.loads:
        _say(f"{scenario.title}: load {load:g} of {saturation.req_per_s:.2f} req/s")
        for name in plan.systems:
            entry = ENTRIES[name]
            members = [
                _cell(scenario, plan, saturation, load, name, member)
                for member in range(len(entry.factories))
            ]
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


def _saturation(scenario: Scenario, plan: Plan) -> Saturation:
    seed = plan.seeds[0]
    key = run_key(scenario.trace, scenario.fleet, what="saturation", seed=seed, clock=plan.clock)

    def measure() -> Run:
        return asdict(measure_saturation(scenario.trace, scenario.fleet, plan.clock, seed))

    return Saturation(**plan.kept.once(key, measure))


def _cell(
    scenario: Scenario, plan: Plan, saturation: Saturation, load: float, name: str, member: int
) -> Cell:
    runs = [_run(scenario, plan, saturation, load, name, member, seed) for seed in plan.seeds]
    figures = {key: median(_known(runs, key)) for key in SHOWN}
    speed = sum(run["requests"] for run in runs) / sum(run["wall_s"] for run in runs) * 60
    kind = ENTRIES[name].kind
    hit_rate = figures["hit_rate"] or 0.0
    return Cell(scenario, load, name, kind, figures, hit_rate, speed, runs[0]["member"])


def _run(
    scenario: Scenario,
    plan: Plan,
    saturation: Saturation,
    load: float,
    name: str,
    member: int,
    seed: int,
) -> Run:
    trace, fleet = scenario.trace, scenario.fleet

    def run() -> Run:
        system = ENTRIES[name].factories[member](plan.slo)
        outcome = run_at(system, trace, fleet, saturation, load, plan.slo, plan.clock, seed)
        figures = {key: outcome.figures[key] for key in SHOWN}
        requests = len(outcome.world.requests)
        return {
            "figures": figures,
            "requests": requests,
            "wall_s": outcome.wall_s,
            "member": system.name,
        }

    key = run_key(
        trace,
        fleet,
        system=name,
        member=member,
        load=load,
        saturation=saturation,
        slo=plan.slo,
        clock=plan.clock,
        seed=seed,
    )
    return plan.kept.once(key, run)


def _known(runs: list[Run], key: str) -> list[float]:
    values = (run["figures"][key] for run in runs)
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
