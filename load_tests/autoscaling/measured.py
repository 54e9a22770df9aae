"""Measured tables of replicas, kept in a file: measuring one takes a minute, reading it nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from load_tests.autoscaling.engines import LoadRow, ReplicaTable, fine, replica_table
from weir.autoscaling.report import Capacity
from weir.planner.serving import Engine, Lengths

KEPT = Path(__file__).with_name("measured.json")


def table_of(
    name: str, engine: Engine, lengths: Lengths, ttft_s: float, tpot_s: float, file: Path = KEPT
) -> ReplicaTable:
    """From the file; else measured now and added to it, where it may be written."""
    key = f"{name} {lengths.prompt:.0f} {lengths.output:.0f} {lengths.variation} {ttft_s} {tpot_s}"
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if key in known:
        return _read(known[key])
    table = replica_table(engine, lengths, ttft_s, tpot_s)
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    known[key] = _written(table)
    with suppress(OSError):  # a checkout that is read only measures each time
        file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    return table


def _written(table: ReplicaTable) -> dict[str, object]:
    points = [asdict(row) for row in table.points]
    return {
        "points": [{name: round(value, 5) for name, value in row.items()} for row in points],
        "saturated_per_s": table.saturated_per_s,
        "room": table.room,
        "capacity": asdict(table.capacity),
    }


def _read(found: dict[str, object]) -> ReplicaTable:
    points = tuple(LoadRow(**row) for row in found["points"])  # type: ignore[attr-defined]
    capacity = Capacity(**found["capacity"])  # type: ignore[arg-type]
    return ReplicaTable(
        tuple(fine(points)),
        float(found["saturated_per_s"]),  # type: ignore[arg-type]
        int(found["room"]),  # type: ignore[call-overload]
        capacity,
        points,
    )
