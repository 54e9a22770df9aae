"""What policies did over days, one under the other on one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.autoscaling.fleet import Outcome
from load_tests.autoscaling.traces import Ticks

#: Told apart by colour-blind readers too (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(runs: Sequence[tuple[str, Outcome]], ticks: Ticks, title: str, file: Path) -> None:
    """Demand, replicas, cost, queue and share in time, as PNG or SVG by the file's name.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise SystemExit("--picture needs matplotlib (weir's benches extra)") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 1, figsize=(11, 11), sharex=True, constrained_layout=True)
    _demand(axes[0], ticks, runs[0][1])
    for (name, found), colour in zip(runs, _COLOURS * len(runs), strict=False):
        _policy(axes, name, found, colour)
    _label(axes, title)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _demand(axis: Any, ticks: Ticks, first: Outcome) -> None:
    every = max(1, round((first.moments[1].at_s if len(first.moments) > 1 else 300) / ticks.tick_s))
    rates = []
    for column in (ticks.urgent_requests, ticks.batch_requests):
        whole = column[: len(column) // every * every].reshape(-1, every)
        rates.append(whole.mean(axis=1) / ticks.tick_s)
    hours = np.arange(len(rates[0])) * every * ticks.tick_s / 3600
    axis.fill_between(hours, rates[0], step="post", color="#999999", alpha=0.6, linewidth=0)
    if ticks.batch_requests.any():
        both = rates[0] + rates[1]
        axis.fill_between(hours, rates[0], both, step="post", color="#CCCCCC", linewidth=0)
        axis.text(0.995, 0.9, "light: batch", transform=axis.transAxes, ha="right", color="#777777")


def _policy(axes: Sequence[Any], name: str, found: Outcome, colour: str) -> None:
    moments = [moment for moment in found.moments if moment.ticks]
    hours = np.array([moment.at_s / 3600 for moment in moments])
    label = f"{name}: {found.usd:,.0f} USD, {found.met:.1%} in time"
    style = {"color": colour, "linewidth": 1.3}
    replicas = [moment.replicas / moment.ticks for moment in moments]
    axes[1].plot(hours, replicas, label=label, drawstyle="steps-post", **style)
    spent = np.cumsum([m.usd_per_hour / m.ticks for m in moments]) * _hours_each(hours)
    axes[2].plot(hours, spent, **style)
    axes[3].plot(hours, [moment.waiting / moment.ticks for moment in moments], **style)
    axes[4].plot(hours, [100 * moment.met for moment in moments], **style)


def _hours_each(hours: np.ndarray) -> float:
    return float(hours[1] - hours[0]) if len(hours) > 1 else 1.0


def _label(axes: Sequence[Any], title: str) -> None:
    axes[0].set_title(title, loc="left", fontweight="bold")
    names = ("requests/s", "ready replicas", "USD spent", "requests waiting", "in time, %")
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
    for axis in axes[:3]:
        axis.set_ylim(bottom=0)
    axes[3].set_yscale("symlog", linthresh=10)
    axes[3].set_ylim(bottom=0)
    axes[4].set_ylim(-2, 102)
    axes[4].axhline(99, color="#444444", linewidth=0.8, linestyle=":")
    axes[4].set_xlabel("hours")
