"""One picture: a column per trace and fleet; goodput, TTFT p99 and hit rate over the load."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_tests.routing.sweep import Cell
from load_tests.systems import ORACLE, WEIR

PANELS = (
    ("goodput_req_per_s", "good requests per s", "linear"),
    ("ttft_p99_ms", "TTFT p99, ms", "log"),
    ("hit_rate", "prefix hit rate", "linear"),
)


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Write a PNG.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    pyplot = _pyplot()
    titles = list(dict.fromkeys(cell.scenario.title for cell in cells))
    systems = list(dict.fromkeys(cell.system for cell in cells))
    figure, axes = pyplot.subplots(
        len(PANELS), len(titles), figsize=(4.6 * len(titles), 9.5), squeeze=False, sharex="col"
    )
    for column, title in enumerate(titles):
        here = [cell for cell in cells if cell.scenario.title == title]
        for line, (key, label, scale) in enumerate(PANELS):
            axis = axes[line][column]
            for number, system in enumerate(systems):
                _curve(axis, [cell for cell in here if cell.system == system], key, number)
            axis.set_yscale(scale)
            axis.grid(visible=True, alpha=0.3)
            axis.set_ylabel(label if column == 0 else "")
        axes[0][column].set_title(title, fontsize=10)
        axes[-1][column].set_xlabel("load (1 = saturation)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _curve(axis: Any, cells: list[Cell], key: str, number: int) -> None:
    points = [(cell.load, cell.figures.get(key)) for cell in cells]
    known = [(load, value) for load, value in points if value is not None]
    if not known:
        return
    system = cells[0].system
    style: dict[str, Any] = {"color": f"C{number % 10}", "linewidth": 1.0, "alpha": 0.85}
    if system == WEIR:
        style = {"color": "black", "linewidth": 2.4, "zorder": 5}
    elif system == ORACLE:
        style = {"color": "gray", "linewidth": 1.6, "linestyle": "--"}
    axis.plot(*zip(*known, strict=True), marker=".", label=system, **style)


def _pyplot() -> Any:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise SystemExit("--picture needs matplotlib (weir's benches extra)") from error
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")
