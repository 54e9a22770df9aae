"""One picture of a cost report: who bears what, what is idle, and what was saved."""

from __future__ import annotations

import importlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from weir.errors import ConfigError
from weir.ledger.report import CostReport

#: More groups than that are drawn as one.
_MOST_BARS = 20


def draw(report: CostReport, path: Path) -> None:
    """Write a PNG.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    pyplot = _pyplot()
    borne = _borne(report)
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 1.6 + 0.32 * len(borne)), width_ratios=(3, 1)
    )
    _bars(left, borne)
    left.set_title(f"{report.paid_usd:.2f} USD paid, {report.idle_usd:.2f} USD of it idle")
    left.set_xlabel("USD")
    saved = report.saved
    names = ("cached\nprompts", "students", "spot")
    amounts = (saved.cache_usd, saved.student_usd, saved.spot_usd)
    right.bar(names, [float(amount) for amount in amounts], color="C2")
    right.set_title("saved, USD")
    for axis in (left, right):
        axis.grid(visible=True, alpha=0.3)
        axis.set_axisbelow(True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _borne(report: CostReport) -> list[tuple[str, Decimal, str]]:
    """Name, USD and colour of each bar, from the top."""
    rows = list(report.rows)
    if report.by not in ("day", "hour"):
        rows.sort(key=lambda row: row.cost_usd, reverse=True)
    bars = [(row.group or "(none)", row.cost_usd, "C0") for row in rows[:_MOST_BARS]]
    if others := rows[_MOST_BARS:]:
        amount = sum((row.cost_usd for row in others), Decimal(0))
        bars.append((f"{len(others)} others", amount, "C0"))
    for pool in report.pools:
        name = f"{pool.model}:{pool.pool}" if pool.pool else pool.model
        bars.append((f"idle: {name}", pool.idle_usd, "C7"))
    return bars


def _bars(axis: Any, bars: list[tuple[str, Decimal, str]]) -> None:
    places = list(range(len(bars)))
    axis.barh(places, [float(usd) for _, usd, _ in bars], color=[colour for *_, colour in bars])
    axis.set_yticks(places, [name for name, *_ in bars])
    axis.invert_yaxis()
    for place, (_, usd, _) in zip(places, bars, strict=True):
        axis.annotate(f" {usd:.4f}", (float(usd), place), va="center", fontsize=8)
    axis.margins(x=0.15)


def _pyplot() -> Any:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise ConfigError("--picture needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")
