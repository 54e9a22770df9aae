"""Where the seconds of a start go, from the supervisor's ``progress.jsonl``. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's first and last line, in seconds since the supervisor began. Stages overlap."""

    name: str
    start_s: float
    done_s: float


def read_stages(progress: str) -> tuple[Stage, ...]:
    """Stages in the order in which they began; one that never ended is left out."""
    first: dict[str, float] = {}
    done: dict[str, float] = {}
    for line in progress.splitlines():
        event = json.loads(line)
        name = str(event["stage"])
        first.setdefault(name, float(event["t"]))
        if event["state"] == "done":
            done[name] = float(event["t"])
    return tuple(Stage(name, start, done[name]) for name, start in first.items() if name in done)
