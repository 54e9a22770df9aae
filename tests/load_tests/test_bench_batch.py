"""The bench of batch jobs: what it asks, when it kills, and what it makes of what it saw."""

from __future__ import annotations

import json

import psutil
import pytest

from load_tests.batch.jobs import batch_lines
from load_tests.batch.kills import at_progress
from load_tests.bench_batch import (
    ALONE,
    BATCH,
    COMPUTING,
    _computing,
    _once,
    _tail_rows,
    _unmeasured,
)
from load_tests.servers import StartError


def window(p99: float | None, under_way: bool = True) -> dict[str, object]:
    return {"ttft_ms_p50": 1.0, "ttft_ms_p99": p99, "batch_under_way": under_way}


def test_lines_are_requests_with_ids() -> None:
    first, second = batch_lines("m", ["a", "b"], 3).splitlines()
    assert json.loads(first)["custom_id"] == "0"
    told = json.loads(second)
    assert (told["method"], told["url"]) == ("POST", "/v1/chat/completions")
    assert told["body"]["messages"][0]["content"] == "b"
    assert told["body"]["max_tokens"] == 3


def test_kills_come_at_even_steps_of_progress() -> None:
    progress = iter(range(1000))
    now, kills = [0], []

    def done() -> int:
        now[0] = next(progress)
        return now[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("load_tests.batch.kills.time.sleep", lambda _: None)
        made = at_progress(done, 100, 3, lambda: kills.append(now[0]), 10.0)
    assert made == 3
    assert kills == [25, 50, 75]


def test_a_batch_that_stands_still_is_given_up() -> None:
    with pytest.raises(StartError):
        at_progress(lambda: 0, 100, 3, lambda: None, -1.0)


def test_the_tail_is_the_median_ratio_of_the_rounds() -> None:
    found = {
        ALONE: [window(10.0), window(20.0), window(10.0)],
        COMPUTING: [window(20.0), window(20.0), window(40.0)],
        BATCH: [window(11.0), window(60.0), window(10.0)],
    }
    rows, (neighbour, mark) = _tail_rows(found)
    assert [row["system"] for row in rows] == [ALONE, COMPUTING, BATCH]
    assert neighbour.value == pytest.approx(2.0)
    assert mark.value == pytest.approx(1.1)
    assert mark.met
    found[BATCH][0]["batch_under_way"] = False
    _, (_, mark) = _tail_rows(found)
    assert "ended" in (mark.reason or "")
    _, (_, mark) = _tail_rows({name: [window(None)] for name in (ALONE, COMPUTING, BATCH)})
    assert mark.value is None


def test_processes_that_compute_end_with_their_window() -> None:
    me = psutil.Process()
    before = set(me.children())
    with _computing():
        started = set(me.children()) - before
        assert started
    assert not any(process.is_running() for process in started)


def test_results_are_counted_by_line() -> None:
    batch = {"status": "completed", "request_counts": {"failed": 0}}
    _, marks = _once("replicas", batch, ["1", "2", "2"], 4, 3, 1.0)
    assert [mark.value for mark in marks] == [2, 1]
    _, marks = _once("replicas", batch, ["1", "2"], 2, 3, 1.0)
    assert all(mark.met for mark in marks)
    names = [
        mark.name for part in ("tail", "replicas", "gateways") for mark in _unmeasured(part, "x")
    ]
    assert len(set(names)) == 6
