"""What a starting platform tells whoever waits: one JSON line per step in ``progress.jsonl``."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Literal

State = Literal["start", "progress", "done", "fail"]


class Progress:
    """Appends to ``file``; ``t`` counts seconds from ``started_s`` (monotonic)."""

    def __init__(self, file: Path, started_s: float) -> None:
        self._file = file
        self._started_s = started_s
        file.write_text("")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_s

    def tell(self, stage: str, state: State, detail: str = "", error: str = "") -> None:
        """One step further."""
        line: dict[str, object] = {"t": round(self.seconds, 2), "stage": stage, "state": state}
        if detail:
            line["detail"] = detail
        if error:
            line["error"] = error
        # A full disk must not end a platform that serves.
        with contextlib.suppress(OSError), self._file.open("a") as out:
            out.write(json.dumps(line) + "\n")
