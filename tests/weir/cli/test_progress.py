"""Reading and showing progress.jsonl."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from weir.cli.progress import Event, PlainDisplay, Progress, ProgressFile, display, title


def event(stage: str, state: str, detail: str = "", error: str = "", seconds: float = 1.0) -> Event:
    return Event(seconds, stage, state, detail, error)


def test_only_whole_lines_are_read_and_each_only_once(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    reader = ProgressFile(file)
    assert reader.new_events() == []
    lines = [json.dumps({"t": n, "stage": "ray", "state": "progress"}) + "\n" for n in range(3)]
    file.write_text(lines[0] + lines[1][:10])
    assert [e.seconds for e in reader.new_events()] == [0]
    assert reader.new_events() == []
    with file.open("a") as handle:
        handle.write(lines[1][10:] + "not json\n[1]\n{}\n" + lines[2])
    assert [e.seconds for e in reader.new_events()] == [1, 2]


def test_the_latest_event_of_each_stage_counts() -> None:
    progress = Progress()
    for each in (
        event("ray", "start"),
        event("model:m", "start"),
        event("ray", "done"),
        event("model:m", "progress", "1 of 2 replicas running"),
    ):
        progress.add(each)
    assert progress.waiting_for == "model m: 1 of 2 replicas running"
    assert not progress.ready
    assert progress.failure is None
    progress.add(event("model:m", "fail", error="out of memory"))
    assert progress.failure is not None
    assert progress.failure.error == "out of memory"
    progress.add(event("ready", "done"))
    assert progress.ready


@pytest.mark.parametrize(
    ("stage", "words"),
    [("model:a:b", "model a:b"), ("serve", "Ray Serve"), ("ready", "platform"), ("x", "x")],
)
def test_titles(stage: str, words: str) -> None:
    assert title(stage) == words


def test_plain_lines_say_each_thing_once() -> None:
    out = io.StringIO()
    shown = PlainDisplay(Console(file=out))
    once = [event("redis", "done", "on [6390]"), event("redis", "done", "on [6390]", seconds=2)]
    shown.update(Progress(), once, 1.0)
    shown.update(Progress(), [event("ray", "fail", error="boom")], 3.0)
    assert out.getvalue().splitlines() == [
        "   1.0 s  Redis: ready, on [6390]",
        "   1.0 s  Ray: failed, boom",
    ]


def test_a_terminal_shows_one_row_for_each_stage() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    progress = Progress()
    with display(console) as shown:
        shown.update(progress, [], 0.1)
        for each in (
            event("redis", "start", seconds=0.5),
            event("redis", "done", "127.0.0.1:[1]", seconds=2.0),
            event("model:m", "progress", "0 of 2 replicas running", seconds=2.0),
        ):
            progress.add(each)
        shown.update(progress, [], 5.0)
    text = out.getvalue()
    assert "✓  Redis    127.0.0.1:[1]" in text
    assert "1.5 s" in text
    assert "0 of 2 replicas running" in text
    assert "3.0 s" in text
