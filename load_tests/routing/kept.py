"""Runs kept in a file, so that a long sweep can be stopped, resumed and done in parts.

One JSON object a line: ``{"key": …, "run": …}``. The key names everything that a run depends on
except the code, so a file is good for one version of it: start a new one after a change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from load_tests.sim.world import FleetConfig
from load_tests.traces import Trace

Run = dict[str, Any]


class KeptRuns:
    """``path`` None: nothing is kept."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Run] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["run"]

    def knows(self, key: str) -> bool:
        """Whether the run of that key was made already."""
        return key in self._known

    def once(self, key: str, run: Callable[[], Run]) -> Run:
        """The run of that key: from the file, or made now and added to it."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = run()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "run": found}) + "\n")
        return found


def run_key(trace: Trace, fleet: FleetConfig, **more: object) -> str:
    """What a run depends on, as one line."""
    config = asdict(fleet)
    config["timing"] = {k: v for k, v in config["timing"].items() if k != "source"}
    what = {"trace": trace.name, "requests": len(trace.requests), "fleet": config, **more}
    return json.dumps(what, sort_keys=True, default=str)
