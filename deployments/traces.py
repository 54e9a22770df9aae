"""Reads the traces that torch's profiler writes, to name what cost most."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Kinds of events that are work; the rest are annotations and the Python frames around it.
_WORK = {"cpu_op", "kernel", "gpu_memcpy", "gpu_memset"}


def list_traces(folder: Path) -> set[Path]:
    """The trace files in ``folder``, or none where there is no such folder."""
    return {*folder.glob("*.json"), *folder.glob("*.json.gz")}


def largest_operations(files: Iterable[Path], count: int = 3) -> list[dict[str, Any]]:
    """The operations with the most time of their own, as ``function`` and ``share`` of all."""
    own_us: dict[str, float] = {}
    for file in files:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for name, spent_us in _own_times(json.loads(data)["traceEvents"]):
            own_us[name] = own_us.get(name, 0.0) + spent_us
    total = sum(own_us.values())
    ranked = sorted(own_us.items(), key=lambda item: -item[1])[:count]
    return [{"function": name, "share": spent / total} for name, spent in ranked if total]


def _own_times(events: Iterable[dict[str, Any]]) -> list[tuple[str, float]]:
    """Each event's duration without that of the events inside it, per thread, in microseconds."""
    rows: dict[tuple[Any, Any], list[tuple[float, float, str]]] = {}
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in _WORK:
            row = rows.setdefault((event.get("pid"), event.get("tid")), [])
            row.append((float(event["ts"]), float(event["dur"]), str(event["name"])))
    spent = []
    for row in rows.values():
        row.sort(key=lambda event: (event[0], -event[1]))
        own = [duration for _, duration, _ in row]
        open_events: list[int] = []
        for n, (start, duration, _) in enumerate(row):
            while open_events and row[open_events[-1]][0] + row[open_events[-1]][1] <= start:
                open_events.pop()
            if open_events:
                own[open_events[-1]] -= duration
            open_events.append(n)
        spent += [(name, left) for (_, _, name), left in zip(row, own, strict=True)]
    return spent
