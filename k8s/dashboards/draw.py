"""Draws the dashboards from a Prometheus, with the queries that Grafana would ask:
``python k8s/dashboards/draw.py URL --minutes 5 --out docs/pictures``."""

from __future__ import annotations

import argparse
import io
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from boards import DASHBOARDS
from live import ready
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from panels import Dashboard, Panel
from PIL import Image

from weir.testing.prometheus import Prometheus, Series

#: Told apart by people who see red and green alike (Okabe and Ito, 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#000000")
_POINTS = 120
_MOST_SERIES = 8
_WIDTH_IN, _ROW_IN, _STAT_IN, _DPI = 15.0, 2.9, 1.1, 75
#: Heights of the dashboard's title, of what is below a panel's axes, and of what is above.
_TITLE_IN, _LEGEND_IN, _HEADING_IN = 0.5, 0.8, 0.3
_LABEL = re.compile(r"\{\{(\w+)\}\}")


def draw(server: Prometheus, board: Dashboard, start_s: float, end_s: float, file: Path) -> None:
    """One dashboard as a picture."""
    lines = [_lines_of(row.panels) for row in board.rows]
    flat = [line for group in lines for line in group]
    heights = [_STAT_IN if line[0].kind == "stat" else _ROW_IN for line in flat]
    height_in = sum(heights) + _TITLE_IN
    figure = plt.figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI)
    figure.text(0.01, 1 - 0.25 / height_in, board.title, fontsize=15, weight="bold")
    top_in = _TITLE_IN
    for line, row_in in zip(flat, heights, strict=True):
        at = 0
        for panel in line:
            left, width = at / 24 + 0.045, panel.width / 24 - 0.06
            below_in = 0.1 if panel.kind in ("stat", "table") else _LEGEND_IN
            bottom = 1 - (top_in + row_in - below_in) / height_in
            height = (row_in - below_in - _HEADING_IN) / height_in
            axes = figure.add_axes((left, bottom, width, height))
            _panel(server, panel, axes, start_s, end_s)
            at += panel.width
        top_in += row_in
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    """With a palette, which makes a third of the file and loses nothing of lines and areas."""
    drawn = io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(96).save(file, optimize=True)


def _lines_of(panels: Sequence[Panel]) -> list[list[Panel]]:
    """As Grafana breaks a row: 24 columns."""
    lines: list[list[Panel]] = [[]]
    for panel in panels:
        if sum(each.width for each in lines[-1]) + panel.width > 24:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _panel(server: Prometheus, panel: Panel, axes: Axes, start_s: float, end_s: float) -> None:
    axes.set_title(panel.title, fontsize=10, loc="left")
    found = _series(server, panel, start_s, end_s)
    if panel.kind == "stat":
        _stat(panel, axes, found)
    elif panel.kind == "table":
        _table(panel, axes, found)
    elif not found:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"nothing here: {panel.laptop}", ha="center", color="#777", wrap=True)
    else:
        _over_time(panel, axes, found, start_s)


def _series(
    server: Prometheus, panel: Panel, start_s: float, end_s: float
) -> list[tuple[str, list[tuple[float, float]]]]:
    found = []
    step_s = max(1.0, (end_s - start_s) / _POINTS)
    for query in panel.queries:
        told: list[Series] = server.range(ready(query.expression), start_s, end_s, step_s)
        for labels, points in told:
            numbers = [(at, value) for at, value in points if value == value]
            if numbers:
                found.append((_legend(query.legend, labels), numbers))
    if panel.kind == "table":
        return sorted(found, key=lambda each: each[1][-1][1])[:_MOST_SERIES]
    # The largest ones; of what may be below 0, those that went lowest.
    worst = min if panel.least is None else max
    found.sort(key=lambda each: worst(value for _, value in each[1]), reverse=worst is max)
    return sorted(found[:_MOST_SERIES], key=lambda each: each[0])


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    named = _LABEL.sub(lambda label: labels.get(label[1], ""), pattern)
    # A replica's id in Ray Serve is long, and its end tells it apart.
    return re.sub(r"\S{16,}", lambda word: "…" + word[0][-8:], named).strip()


def _over_time(panel: Panel, axes: Axes, found: list[Any], start_s: float) -> None:
    names = [name for name, _ in found]
    if panel.kind == "stack":
        times = sorted({at for _, points in found for at, _ in points})
        heights = [[dict(points).get(at, 0.0) for at in times] for _, points in found]
        axes.stackplot(
            [at - start_s for at in times], heights, labels=names, colors=_COLOURS, alpha=0.75
        )
    else:
        for number, (name, points) in enumerate(found):
            axes.plot(
                [at - start_s for at, _ in points],
                [value for _, value in points],
                label=name,
                color=_COLOURS[number % len(_COLOURS)],
                linestyle="--" if "p95" in name else "-",
                linewidth=1.4,
            )
    if panel.least is not None:
        axes.set_ylim(bottom=panel.least)
    if panel.most is not None:
        axes.set_ylim(top=panel.most)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value, panel.unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at // 60:.0f}:{at % 60:02.0f}"))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.12))


def _stat(panel: Panel, axes: Axes, found: list[Any]) -> None:
    axes.set_axis_off()
    told = number_text(found[0][1][-1][1], panel.unit) if found else "–"
    axes.text(0.0, 0.35, told, fontsize=22, color=_COLOURS[0], transform=axes.transAxes)


def _table(panel: Panel, axes: Axes, found: list[Any]) -> None:
    axes.set_axis_off()
    rows = [(name, points[-1][1]) for name, points in found]
    for number, (name, value) in enumerate(rows):
        height = 0.9 - 0.105 * number
        axes.text(0.02, height, name, fontsize=9, transform=axes.transAxes)
        told = number_text(value, panel.unit)
        axes.text(0.8, height, told, fontsize=9, ha="right", transform=axes.transAxes)


def number_text(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "percentunit":
        return f"{value:.0%}" if abs(value) >= 0.1 or value == 0 else f"{value:.1%}"
    if unit == "currencyUSD":
        return f"${value:.2f}" if value >= 0.1 or value == 0 else f"${value:.3g}"
    if unit == "s":
        return f"{value:g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"
    if unit == "bytes":
        return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"
    suffix = {"reqps": "/s", "h": " h", "short": ""}.get(unit, f" {unit}".replace(" /s", "/s"))
    return f"{value:,.0f}{suffix}" if value >= 100 else f"{value:.3g}{suffix}"


def main() -> int:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of Prometheus")
    parser.add_argument("--minutes", type=float, default=60.0, help="up to now")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    end_s = time.time()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for board in DASHBOARDS:
        file = arguments.out / f"dashboard-{board.uid.removeprefix('weir-')}.png"
        draw(Prometheus(arguments.url), board, end_s - 60 * arguments.minutes, end_s, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
