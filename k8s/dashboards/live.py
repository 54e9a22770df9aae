"""A Prometheus beside a platform that runs: what it is told to scrape, and what panels show.

Rules are evaluated every two seconds instead of each minute, so that a run of two minutes has what
a day has in production; and rates are over half a minute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from boards import DASHBOARDS
from panels import Dashboard, Panel

from weir.settings import Settings
from weir.slo.files import groups
from weir.testing.prometheus import Prometheus

RATE_INTERVAL = "30s"
_LONG = re.compile(r"\[\d+d:5m\]")
_VARIABLE = re.compile(r"\$(?:model|tenant|priority)\b")


def scraped(url: str, token: str) -> dict[str, Any]:
    """Prometheus' entry for a platform. ``token``: a key that opens its metrics."""
    return {
        "job_name": "weir",
        "authorization": {"credentials": token},
        "static_configs": [{"targets": [url.removeprefix("http://")]}],
    }


def quick_rules(settings: Settings, folder: Path) -> Path:
    """The rules of the settings, evaluated each second. Returns the file."""
    made = groups(settings)
    for group in made:
        group["interval"] = "2s"
        for rule in group["rules"]:
            # A month in steps of a second would be all that Prometheus does.
            short = _LONG.sub("[10m:2s]", rule["expr"])
            rule["expr"] = short.replace("[5m]", "[30s]")
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": made}))
    return file


def ready(expression: str, interval: str = RATE_INTERVAL) -> str:
    """An expression with Grafana's variables replaced: everything is chosen."""
    return _VARIABLE.sub(".*", expression.replace("$__rate_interval", interval))


def panels() -> Iterator[tuple[Dashboard, Panel]]:
    """All panels of all dashboards."""
    for board in DASHBOARDS:
        for row in board.rows:
            for panel in row.panels:
                yield board, panel


def empty_queries(server: Prometheus, start_s: float, end_s: float) -> Mapping[str, bool]:
    """Queries that found nothing but absent or undefined values, by dashboard, panel and number;
    whether the panel says why it may be so."""
    found = {}
    for board, panel in panels():
        for number, query in enumerate(panel.queries):
            step_s = max(1.0, (end_s - start_s) / 100)
            series = server.range(ready(query.expression), start_s, end_s, step_s)
            values = [value for _, points in series for _, value in points]
            if all(value != value for value in values):  # no number at all
                found[f"{board.uid}/{panel.title}/{number}"] = bool(panel.laptop)
    return found
