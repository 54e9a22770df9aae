"""What ``weir features`` shows."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from features.desk_data import GENERATED
from features.desk_data.views import LINEAGE

if TYPE_CHECKING:
    from features.repo import Held, ViewHeld

_LONGEST = 72


@contextlib.contextmanager
def progress_bar(console: Console, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar that is told how far it is; without a terminal, a line now and then."""
    if not console.is_terminal:
        yield _lines(console, what, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(console: Console, what: str, total: int | None) -> Callable[[int], None]:
    shown = 0

    def told(done: int) -> None:
        nonlocal shown
        if done == total or done >= shown + max(1, (total or 50_000) // 5):
            shown = done
            console.print(f"{what}: {done}{f' of {total}' if total else ''}", markup=False)

    return told


def held_as_json(held: Held, now: dt.datetime) -> dict[str, Any]:
    """What ``inspect --json`` prints."""
    return {
        "entity": held.entity,
        "known": held.known,
        "long_tail": long_tail(held, now),
        "views": {each.view.name: _view_json(each, now) for each in held.views},
    }


def _view_json(each: ViewHeld, now: dt.datetime) -> dict[str, Any]:
    age = each.age(now)
    return {
        "state": freshness(each, now),
        "event_time": each.event_time.isoformat() if each.event_time else None,
        "age_s": round(age.total_seconds(), 1) if age is not None else None,
        "ttl_s": each.view.ttl.total_seconds(),
        "values": dict(each.values),
    }


def freshness(each: ViewHeld, now: dt.datetime) -> str:
    """``missing``, ``stale`` (older than the view's time to live) or ``fresh``."""
    age = each.age(now)
    if age is None:
        return "missing"
    return "stale" if age > each.view.ttl else "fresh"


def long_tail(held: Held, now: dt.datetime) -> bool:
    """Whether the entity has no generated features that are fresh."""
    views = {each.view.name: each for each in held.views}
    return freshness(views[GENERATED.name], now) != "fresh"


def held_table(held: Held, now: dt.datetime) -> Table:
    """Each feature with its value; per view its age, freshness and lineage."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("view", "feature", "value"):
        table.add_column(heading, no_wrap=True)
    for each in held.views:
        table.add_row(Text(each.view.name, "bold"), "", Text(_state(each, now), _color(each, now)))
        for name, value in each.values.items():
            style = "dim" if each.view is GENERATED and name in LINEAGE else ""
            table.add_row("", Text(name, style), Text(_shown(value), style))
    return table


def _state(each: ViewHeld, now: dt.datetime) -> str:
    age = each.age(now)
    state = freshness(each, now)
    if age is None or each.event_time is None:
        return state
    return f"{state}, {_span(age)} old (good for {_span(each.view.ttl)})"


def _color(each: ViewHeld, now: dt.datetime) -> str:
    return {"fresh": "green", "stale": "yellow", "missing": "red"}[freshness(each, now)]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _span(span: dt.timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
