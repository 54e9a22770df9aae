"""Traces, fleets and runs of ``weir bench autoscale``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import weir.autoscaling.policies  # noqa: F401 - registers the policies
from load_tests.autoscaling.contenders import Contender, usd_per_request
from load_tests.autoscaling.engines import ReplicaTable
from load_tests.autoscaling.fleet import Outcome, PoolKind, World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.measured import table_of
from load_tests.autoscaling.traces import Ticks, read_servegen
from load_tests.autoscaling.tuning import Day, Tried, chosen, chosen_margin, days_of
from load_tests.planner.published import LLAMA_70B
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import PoolState
from weir.cards import make_card
from weir.planner.accelerators import find_accelerator
from weir.planner.plan import Question, engine_of
from weir.planner.roofline import Layout
from weir.planner.serving import Engine, Lengths, Slo
from weir.planner.traffic import Traffic

#: On which devices a replica of Llama-3.3-70B in FP8 runs.
_DEVICES = {"H100": 2, "H200": 1}
SLO = Slo(2.0, 0.05)
WEEK_S = 7 * 86_400.0
START_S = 150.0
#: Share of the on-demand price; interruptions of a replica per hour; outages of a place per day.
SPOT_PRICE = 0.4
INTERRUPTIONS_PER_HOUR = 0.05
OUTAGES_PER_DAY = 0.5
_TICK_S = 30.0
_MOST = 2000
_ROOM = 1.5
#: The share of urgent requests in time that is asked for, and of batch work that may be late.
MET, LATE_BATCH = 0.99, 0.01
BATCH_WITHIN_S = 6 * 3600.0
#: Of all urgent requests, that may be answered by the student, where there is one; and what it
#: costs for a request, over the cheapest replica's price.
SPILL_SHARE, STUDENT_PRICE = 0.02, 0.05


@dataclass(frozen=True, slots=True)
class Days:
    """A trace in two weeks: one to tune on, and one to report. ``engines``: of the kinds, in their
    order, one for each accelerator."""

    name: str
    tuning: Ticks
    reported: Ticks
    kinds: tuple[PoolKind, ...]
    engines: tuple[tuple[Engine, Lengths], ...] = ()

    @property
    def has_batch(self) -> bool:
        """Whether some of the work may wait."""
        return bool(self.tuning.batch_requests.any())


def read_days(folder: Path, trace: str, batch_share: float, seed: int) -> Days:
    """``trace``: ``m-large`` or ``m-small``.

    Raises:
        FileNotFoundError: the traces are not there.
    """
    ticks = read_servegen(folder / f"servegen_language_{trace}.csv.gz", batch_share, seed, _TICK_S)
    tuning, reported = ticks.part(0, WEEK_S), ticks.part(WEEK_S, 2 * WEEK_S)
    lengths = Lengths(tuning.mean_prompt, tuning.mean_output, 0.0, 1.5)
    kinds = tuple(_bounded(kind, tuning) for kind in kinds_for(lengths))
    engines = tuple((_engine(name, lengths), lengths) for name in _DEVICES)
    return Days(f"{trace}, {batch_share:.0%} batch", tuning, reported, kinds, engines)


def draws_of(folder: Path, trace: str, batch_share: float, seed: int, count: int) -> list[Ticks]:
    """The reported week's rates with other bursts, so many times."""
    file = folder / f"servegen_language_{trace}.csv.gz"
    return [
        read_servegen(file, batch_share, seed, _TICK_S, bursts=seed + 1 + number).part(
            WEEK_S, 2 * WEEK_S
        )
        for number in range(count)
    ]


def _bounded(kind: PoolKind, tuning: Ticks) -> PoolKind:
    """At most ``_ROOM`` times what the tuning week's busiest ten minutes need of this kind alone,
    as an operator would bound it: a rule that counts requests which wait asks for any number."""
    each = round(600.0 / tuning.tick_s)
    capacity = kind.table.capacity
    prompts = tuning.urgent_prompts + tuning.batch_prompts
    outputs = tuning.urgent_outputs + tuning.batch_outputs
    seconds = prompts / capacity.prefill_tokens_per_s + outputs / capacity.decode_tokens_per_s
    whole = len(seconds) // each * each
    busiest = float(seconds[:whole].reshape(-1, each).mean(axis=1).max()) / tuning.tick_s
    most = math.ceil(_ROOM * busiest / capacity.usable)
    return replace(kind, state=replace(kind.state, most=most))


def kinds_for(lengths: Lengths) -> tuple[PoolKind, ...]:
    """All kinds of replicas, for traffic of such lengths."""
    return tuple(kind for name in _DEVICES for kind in _kinds(name, lengths))


def _engine(name: str, lengths: Lengths) -> Engine:
    accelerator = find_accelerator(name)
    traffic = Traffic(1.0, 1.0, lengths.prompt, lengths.output)
    question = Question(make_card(LLAMA_70B), 8192, 64, 8, traffic, SLO, [accelerator])
    return engine_of(question, accelerator, Layout(_DEVICES[name]))


@lru_cache(maxsize=16)
def _table(name: str, lengths: Lengths) -> ReplicaTable:
    """Measured once for each kind of replica and traffic."""
    return table_of(name, _engine(name, lengths), lengths, SLO.ttft_s, SLO.tpot_s)


def _kinds(name: str, lengths: Lengths) -> list[PoolKind]:
    """On demand in one region, spot in two."""
    table, usd = _table(name, lengths), _DEVICES[name] * find_accelerator(name).usd_per_hour
    plain = PoolState(
        f"{name}-on-demand",
        table.capacity,
        usd,
        accelerator=name,
        region="a",
        most=_MOST,
        start_s=START_S,
    )
    spot = [
        replace(
            plain,
            name=f"{name}-spot-{region}",
            usd_per_hour=usd * SPOT_PRICE,
            region=region,
            market="spot",
            interruptions_per_hour=INTERRUPTIONS_PER_HOUR,
        )
        for region in ("a", "b")
    ]
    return [
        PoolKind(plain, table),
        *(PoolKind(state, table, outages_per_day=OUTAGES_PER_DAY) for state in spot),
    ]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the tuning week chose, by which margin (standard errors over days), and the whole grid
    with what each combination came to."""

    params: dict[str, Any]
    grid: list[dict[str, Any]]
    margin: float


Once = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""The result of that name, if it is kept, or else made now."""


def try_all(
    contender: Contender, days: Days, seed: int, once: Once = lambda _, make: make()
) -> list[Tried]:
    """Every combination of the contender's grid over the tuning week."""
    first = contender.pools(days.kinds)[0]
    tried = []
    for params in contender.choices(first, days.has_batch):
        key = f"{days.name} {contender.name} {sorted(params.items())} {seed}"
        found = once(key, partial(_tried, contender, params, days, seed))
        own = tuple(Day(*day) for day in found["days"])
        tried.append(Tried(params, found["usd"], found["met"], found["late_batch"], own))
    return tried


def tune(contender: Contender, days: Days, seed: int, once: Once = lambda _, make: make()) -> Tuned:
    """By the tuning week alone (:mod:`.tuning`)."""
    tried = try_all(contender, days, seed, once)
    margin = chosen_margin(tried, MET, LATE_BATCH)
    grid = [
        {**one.params, "usd": one.usd, "met": one.met, "late_batch": one.late_batch}
        for one in tried
    ]
    return Tuned(chosen(tried, MET, LATE_BATCH, margin).params, grid, margin)


def _tried(contender: Contender, params: dict[str, Any], days: Days, seed: int) -> dict[str, Any]:
    out = run(contender, params, days.kinds, days.tuning, seed)
    each = [[day.usd, day.urgent, day.met] for day in days_of(out)]
    return {"usd": out.usd, "met": out.met, "late_batch": out.late_batch_share, "days": each}


def world_of(
    contender: Contender, params: dict[str, Any], kinds: Sequence[PoolKind], seed: int
) -> World:
    """What the contender's run takes place in."""
    pools = contender.pools(kinds)
    return World(
        pools,
        SLO.ttft_s,
        SLO.tpot_s,
        spill_share=SPILL_SHARE if contender.spills else 0.0,
        spill_usd=STUDENT_PRICE * usd_per_request(pools[0]),
        batch_within_s=BATCH_WITHIN_S,
        sees_batch=not params.get("gated", False),
        seed=seed,
    )


def run(
    contender: Contender,
    params: dict[str, Any],
    kinds: Sequence[PoolKind],
    ticks: Ticks,
    seed: int,
) -> Outcome:
    """One policy over one week, from as many replicas as its first hour needs."""
    world = world_of(contender, params, kinds, seed)
    asked = {name: value for name, value in params.items() if name != "gated"}
    policy = build_policy(contender.policy, asked)
    return Fluid(world, policy, ticks).run(first_replicas(world.pools[0], ticks))


def first_replicas(kind: PoolKind, ticks: Ticks) -> int:
    """What twice the rate of the first hour needs."""
    first = ticks.part(0, 3600.0)
    rate = float((first.urgent_requests.sum() + first.batch_requests.sum()) / 3600.0)
    return 1 + int(2 * rate / kind.table.saturated_per_s)


def least_usd(days: Days) -> float:
    """What the reported week costs at least: on demand, all work at the planned load of the
    cheapest kind, replicas in fractions that are there at the right moment. Nobody can have it."""
    on_demand = [kind for kind in days.kinds if kind.state.market == "on_demand"]
    kind = min(on_demand, key=usd_per_request)
    capacity, ticks = kind.table.capacity, days.reported
    prompts = float(ticks.urgent_prompts.sum() + ticks.batch_prompts.sum())
    outputs = float(ticks.urgent_outputs.sum() + ticks.batch_outputs.sum())
    seconds = prompts / capacity.prefill_tokens_per_s + outputs / capacity.decode_tokens_per_s
    return seconds / capacity.usable / 3600 * kind.state.usd_per_hour
