"""Rows of systems that have not changed, taken from an earlier report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from load_tests.routing.sweep import Cell, Scenario
from load_tests.systems import ENTRIES


def earlier_cells(path: Path, scenarios: Sequence[Scenario], measured: Sequence[str]) -> list[Cell]:
    """What the report at ``path`` says of all systems but ``measured``, on these scenarios."""
    by_title = {scenario.title: scenario for scenario in scenarios}
    cells = []
    for row in json.loads(path.read_text("utf-8"))["rows"]:
        system, title = row["system"], str(row.get("table", "")).rsplit(", load", 1)[0]
        if system in measured or system not in ENTRIES or title not in by_title:
            continue
        entry, hit_rate = ENTRIES[system], row.get("hit_rate", 0.0)
        best, member = row.get("best_hit_rate", hit_rate), row.get("member", system)
        scenario, load = by_title[title], row["load"]
        cells.append(Cell(scenario, load, system, entry.kind, row, best, 0.0, member))
    return cells
