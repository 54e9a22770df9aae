"""The targets of the routing bench: first among the peers, near the oracle, fast enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from load_tests.report import Mark
from load_tests.routing.sweep import Cell, Plan
from load_tests.systems import ORACLE, WEIR

OVERLOAD = 1.5
Pick = Callable[[list[float]], float]
Better = Literal["lower", "higher"]


def marks_of(cells: Sequence[Cell], plan: Plan) -> list[Mark]:
    """Per trace and fleet, the issue's four targets; and the simulator's speed."""
    marks: list[Mark] = []
    titles = dict.fromkeys(cell.scenario.title for cell in cells)
    for title in titles:
        here = [cell for cell in cells if cell.scenario.title == title]
        marks += _scenario_marks(title, here, plan.loads)
    marks.append(_speed(cells))
    return marks


def _scenario_marks(title: str, cells: list[Cell], loads: tuple[float, ...]) -> list[Mark]:
    first = [_over_best_peer(cells, load, "goodput_req_per_s", max) for load in loads]
    hits = [_over_oracle(cells, load) for load in loads]
    shown = [_over_shown_oracle(cells, load) for load in loads]
    tails = [_over_best_peer(cells, load, "ttft_p99_ms", min) for load in loads if load < 1.0]
    overload = _over_best_peer(cells, OVERLOAD, "goodput_req_per_s", max)
    return [
        _mark(f"{title}: goodput / best peer's, worst load", first, min, 1.0, "higher"),
        _mark(f"{title}: hit rate / highest of all oracles, worst load", hits, min, 0.95, "higher"),
        _mark(f"{title}: hit rate / best-goodput oracle's, worst load", shown, min, 0.95, "higher"),
        _mark(f"{title}: TTFT p99 / best peer's below saturation", tails, max, 1.0, "lower"),
        _mark(f"{title}: goodput / best peer's at {OVERLOAD:g}×", [overload], min, 1.3, "higher"),
    ]


def _speed(cells: Sequence[Cell]) -> Mark:
    speeds = sorted(cell.simulated_per_min for cell in cells if cell.system == WEIR)
    name, unit = "simulated requests per minute, weir, median cell", "requests/min"
    if not speeds:
        return Mark(name, None, unit, 100_000, "higher", "weir was not run")
    return Mark(name, speeds[len(speeds) // 2], unit, 100_000, "higher")


def _mark(name: str, values: list[float | None], pick: Pick, target: float, better: Better) -> Mark:
    known = [value for value in values if value is not None]
    if not known:
        return Mark(name, None, "ratio", target, better, "no such cell was run")
    return Mark(name, pick(known), "ratio", target, better)


def _over_best_peer(cells: list[Cell], load: float, figure: str, best: Pick) -> float | None:
    ours = _figure(cells, load, WEIR, figure)
    theirs = [
        value
        for cell in cells
        if cell.kind == "peer" and cell.load == load
        if (value := cell.figures.get(figure)) is not None
    ]
    return None if ours is None or not theirs else _ratio(ours, best(theirs))


def _over_oracle(cells: list[Cell], load: float) -> float | None:
    ours = _figure(cells, load, WEIR, "hit_rate")
    bound = [cell.best_hit_rate for cell in cells if cell.system == ORACLE and cell.load == load]
    return None if ours is None or not bound else _ratio(ours, bound[0])


def _over_shown_oracle(cells: list[Cell], load: float) -> float | None:
    ours = _figure(cells, load, WEIR, "hit_rate")
    bound = _figure(cells, load, ORACLE, "hit_rate")
    return None if ours is None or bound is None else _ratio(ours, bound)


def _figure(cells: Iterable[Cell], load: float, system: str, figure: str) -> float | None:
    for cell in cells:
        if cell.system == system and cell.load == load:
            value = cell.figures.get(figure)
            return None if value is None else float(value)
    return None


def _ratio(ours: float, theirs: float) -> float:
    """Their zero with our something is a hundredfold; nothing on both sides is a draw."""
    if theirs > 0:
        return min(100.0, ours / theirs)
    return 100.0 if ours > 0 else 1.0
