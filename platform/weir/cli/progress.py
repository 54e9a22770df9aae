"""What the platform is doing while it starts: read from progress.jsonl, shown to a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

READY = "ready"
_MAX_ERROR_CHARS = 120
_MARKS = {"done": "[green]✓[/]", "fail": "[red]✗[/]"}
_TITLES = {
    "redis": "Redis",
    "ray": "Ray",
    "serve": "Ray Serve",
    "gateway": "gateway",
    "control": "admin API",
    "guard": "watching",
    "again": "started again",
    READY: "platform",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of progress.jsonl. ``seconds`` since the supervisor started."""

    seconds: float
    stage: str
    state: str
    detail: str = ""
    error: str = ""

    @classmethod
    def parse(cls, line: str) -> Event | None:
        """None for a line that is no event: half-written, or of a later version."""
        try:
            held: dict[str, Any] = json.loads(line)
            return cls(
                seconds=float(held["t"]),
                stage=str(held["stage"]),
                state=str(held["state"]),
                detail=str(held.get("detail") or ""),
                error=str(held.get("error") or ""),
            )
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(slots=True)
class Progress:
    """The latest event of each stage, in the order in which the stages began."""

    latest: dict[str, Event] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take one more event into account."""
        self.began.setdefault(event.stage, event.seconds)
        self.latest[event.stage] = event

    @property
    def ready(self) -> bool:
        """The gateway answers and a first token was generated."""
        return READY in self.latest and self.latest[READY].state == "done"

    @property
    def failure(self) -> Event | None:
        """The first stage that failed."""
        return next((e for e in self.latest.values() if e.state == "fail"), None)

    @property
    def waiting_for(self) -> str:
        """The stages under way, in words; empty if none is."""
        open_stages = (e for e in self.latest.values() if e.state not in ("done", "fail"))
        return ", ".join(f"{title(e.stage)}: {e.detail or 'starting'}" for e in open_stages)


class ProgressFile:
    """Reads what was appended since the last look."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self._rest = b""

    def new_events(self) -> list[Event]:
        """Events appended since the last call; an unfinished line waits for its end."""
        try:
            with self._file.open("rb") as handle:
                handle.seek(self._offset)
                chunk = handle.read()
        except OSError:
            return []
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = (Event.parse(line.decode("utf-8", "replace")) for line in lines)
        return [event for event in events if event is not None]


def title(stage: str) -> str:
    """A stage's name for people: ``model:x`` reads as ``model x``."""
    return _TITLES.get(stage, stage.replace(":", " ", 1))


class Display(Protocol):
    """Shows progress; ``update`` is called a few times a second."""

    def update(self, progress: Progress, events: list[Event], seconds: float) -> None:
        """Show the new events and the time that has passed."""
        ...


class PlainDisplay:
    """One line for each new thing: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[tuple[str, str, str]] = set()

    def update(self, progress: Progress, events: list[Event], seconds: float) -> None:
        """Print the events that say something new."""
        for event in events:
            said = (event.stage, event.state, event.detail)
            if said not in self._said:
                self._said.add(said)
                self._console.print(
                    f"{event.seconds:6.1f} s  {_line(event)}", markup=False, soft_wrap=True
                )


def _line(event: Event) -> str:
    words = {"start": "starting", "done": "ready", "fail": "failed"}
    parts = [words.get(event.state, ""), event.detail, _short(event.error)]
    return f"{title(event.stage)}: " + ", ".join(part for part in parts if part)


def _short(error: str) -> str:
    """The whole error is told at the end, by the command itself."""
    line = " ".join(error.split())
    return line if len(line) <= _MAX_ERROR_CHARS else f"{line[:_MAX_ERROR_CHARS]}…"


class LiveDisplay:
    """One row for each stage, with a spinner where something is still awaited."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._spinner = Spinner("dots")

    @contextmanager
    def shown(self) -> Iterator[LiveDisplay]:
        """On screen inside, left there afterwards."""
        with self._live:
            yield self

    def update(self, progress: Progress, events: list[Event], seconds: float) -> None:
        """Redraw all rows."""
        from rich.markup import escape
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for stage, event in progress.latest.items():
            ended = event.state in _MARKS
            took = (event.seconds if ended else seconds) - progress.began[stage]
            table.add_row(
                _MARKS.get(event.state, self._spinner),
                escape(title(stage)),
                escape(_short(event.error) or event.detail or ("" if ended else "starting")),
                f"[dim]{max(took, 0.0):.1f} s[/]",
            )
        if not progress.latest:
            table.add_row(self._spinner, "starting", "", f"[dim]{seconds:.1f} s[/]")
        self._live.update(table)


@contextmanager
def display(console: Console) -> Iterator[Display]:
    """The live display on a terminal, plain lines elsewhere."""
    if console.is_terminal:
        with LiveDisplay(console).shown() as live:
            yield live
    else:
        yield PlainDisplay(console)
