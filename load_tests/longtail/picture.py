"""The share of long-tail traffic, day by day."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(curves: Mapping[str, Sequence[float]], emphasised: str, path: Path) -> None:
    """Write a PNG.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(6.4, 3.6))
    for number, (name, shares) in enumerate(curves.items()):
        style: dict[str, Any] = {"color": f"C{number}", "linewidth": 1.2}
        if name == emphasised:
            style = {"color": "black", "linewidth": 2.4, "zorder": 5}
        days = range(1, len(shares) + 1)
        axis.plot(days, [100 * share for share in shares], marker=".", label=name, **style)
    axis.set_xlabel("day")
    axis.set_ylabel("long-tail requests, %")
    axis.set_ylim(0, 102)
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _pyplot() -> Any:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise SystemExit("--picture needs matplotlib (weir's benches extra)") from error
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")
