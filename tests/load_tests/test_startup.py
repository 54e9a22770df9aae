"""The start-up bench: stages from the supervisor's account, marks from starts."""

from __future__ import annotations

import json

import pytest

from load_tests.bench_startup import marks, rows
from load_tests.servers.accounting import Memory
from load_tests.startup.once import Start
from load_tests.startup.stages import Stage, read_stages

EVENTS = [
    (0.0, "redis", "start"),
    (0.5, "redis", "done"),
    (0.5, "model:m", "start"),
    (1.0, "ray", "start"),
    (2.0, "model:m", "progress"),
    (9.0, "model:m", "done"),
]


def a_start(first_token_s: float, pss_mb: float) -> Start:
    memory = {"gateway": Memory(1, 200.0, 100.0), "replica": Memory(2, 3000.0, pss_mb - 100.0)}
    stages = (Stage("redis", 0.0, 0.5), Stage("model:m", 0.5, first_token_s - 1))
    cpu_s = {"gateway": 3.0, "replica": first_token_s}
    return Start(first_token_s - 0.2, first_token_s, stages, cpu_s, memory, memory)


def test_stages_run_from_their_first_line_to_their_done_line() -> None:
    text = "\n".join(json.dumps({"t": t, "stage": s, "state": state}) for t, s, state in EVENTS)
    assert read_stages(text) == (Stage("redis", 0.0, 0.5), Stage("model:m", 0.5, 9.0))


def test_marks_take_the_median_start() -> None:
    starts = [a_start(20, 4000), a_start(60, 6000), a_start(30, 4500)]
    found = {mark.name: mark for mark in marks(starts, "")}
    assert found["first token, first mark"].value == 30
    assert found["first token, first mark"].met
    assert not found["first token, aimed at"].met
    assert found["PSS of the whole platform, loaded"].value == pytest.approx(4.5)
    whole, *others = rows(starts, "")
    assert whole["first_token_s_max"] == 60
    assert {row["table"] for row in others} == {
        "where the seconds go (since the supervisor began)",
        "CPU seconds until the first token",
        "memory by role",
    }
    spent = [row["cpu_s"] for row in others if "cpu_s" in row]
    assert spent == [30, 3.0]
    stage = next(row for row in others if row.get("stage") == "model:m")
    assert stage["seconds"] == pytest.approx(28.5)


def test_a_failed_start_is_told_in_rows_and_marks() -> None:
    assert rows([], "port taken")[0]["reason"] == "port taken"
    assert {mark.reason for mark in marks([], "port taken")} == {"port taken"}
    assert not any(mark.met for mark in marks([], "port taken"))
