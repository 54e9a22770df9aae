"""What a dashboard consists of, as data: titles, queries, units. No Grafana in here.

``$__rate_interval``, ``$model``, ``$tenant`` and ``$priority`` are Grafana's variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How a panel shows its series: lines over time, areas on top of each other, or the last value.
Kind = Literal["lines", "stack", "stat", "table"]
#: Grafana's names of units.
Unit = Literal[
    "short",
    "s",
    "percentunit",
    "reqps",
    "currencyUSD",
    "h",
    "bytes",
    "tokens/s",
    "blocks/s",
    "/s",
    "dtdurations",
]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what a series is called (Grafana's ``{{label}}``)."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``about``: what it shows and what to conclude. ``width``: of 24. ``laptop``: why there is
    nothing to show on a laptop without load of a special kind; empty: there is always something.
    ``least``, ``most``: the ends of the axis."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Kind = "lines"
    width: int = 8
    laptop: str = ""
    least: float | None = 0.0
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``uid`` is a part of its address and the name of its file. ``variables``: labels that can be
    chosen at the top."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Literal["model", "tenant", "priority"], ...] = ()


def quantiles(metric: str, by: str, where: str = "") -> tuple[Query, ...]:
    """Median and 95th percentile of a histogram. ``by``: a label."""
    chosen = f"{{{where}}}" if where else ""
    inner = f"sum by (le, {by}) (rate({metric}_bucket{chosen}[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({q}, {inner})", f"p{int(100 * q)} {{{{{by}}}}}")
        for q in (0.5, 0.95)
    )


def rate(metric: str, by: str, where: str = "") -> str:
    """Sum of a counter's rates. ``by``: labels, with commas; empty: all together."""
    chosen = f"{{{where}}}" if where else ""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{chosen}[$__rate_interval]))"
