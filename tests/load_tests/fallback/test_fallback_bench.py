"""The bench's own arithmetic, and that its simulation runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from load_tests import bench_fallback
from load_tests.fallback import failure, overload, pair, routellm
from load_tests.fallback.platform import KINDS, Tenants, settings
from load_tests.fallback.traffic import Outcome, examples
from weir.settings.fallback import Kind


def questions(count: int = 400) -> routellm.Questions:
    """Questions about numbers are hard for the weak model, others are not."""
    prompts = [f"compute the sum {n}" if n % 2 else f"name the town {n}" for n in range(count)]
    hard = np.array([n % 2 for n in range(count)], dtype=float)
    return routellm.Questions("made up", prompts, 1 - hard, np.ones(count))


def test_a_router_that_can_see_the_difference_finds_it() -> None:
    made = questions()
    order = routellm.predicted_gain(made, seed=1)
    assert routellm.strong_share(made, order, 0.95) == pytest.approx(0.45, abs=0.01)
    assert routellm.coin_share(made, 0.95) == pytest.approx(0.9)
    oracle = made.strong - made.weak
    assert routellm.strong_share(made, oracle, 1.0) == pytest.approx(0.5)


def test_saving_is_a_part_of_sending_everything_to_the_strong_model() -> None:
    assert routellm.saved(1.0) == 0.0
    assert routellm.saved(0.0) == pytest.approx(1 - 0.24 / 24.7)


def outcome(ttft_s: float, error: str = "", model: str = "weir-teacher") -> Outcome:
    example = next(examples(1))
    made = Outcome(example, "interactive", 10.0, 10.0 + ttft_s, 20.0, 200, error, model)
    made.text = example.answer
    return made


def test_slo_counts_refusals_as_missed() -> None:
    outcomes = [outcome(0.1), outcome(1.9, model="weir-student"), outcome(2.1), outcome(0.1, "x")]
    found = overload.figures(outcomes)
    assert found["slo_attained_ratio"] == 0.5
    assert found["by_student_ratio"] == pytest.approx(1 / 3)
    assert found["accuracy_of_answers"] == 1.0
    assert found["right_answers_of_all_ratio"] == 0.75


def test_streams_that_broke_are_counted_apart() -> None:
    broken, refused = outcome(0.1, "replica_failed"), outcome(0.1, "overloaded")
    refused.first_s = None
    killed = failure.Killed([outcome(0.5), broken, refused], at_s=9.0)
    row = failure.row(killed)
    assert row["client_visible_error_ratio"] == 0.5
    assert row["streams_begun_that_broke"] == 1
    assert row["first_student_answer_after_kill_s"] is None


def test_cascade_rows_go_from_student_to_teacher() -> None:
    students = [outcome(0.1) for _ in range(4)]
    for number, one in enumerate(students):
        one.logprobs = [-0.1 * number]
        one.text = one.text if number < 2 else "no idea"
    teachers = [outcome(0.1) for _ in range(4)]
    rows = pair.rows(pair.Asked(teachers, students, teachers), 8, -0.15)
    assert (rows[0]["accuracy"], rows[0]["escalated_ratio"]) == (0.5, 0.0)
    assert (rows[-2]["accuracy"], rows[-2]["escalated_ratio"]) == (1.0, 1.0)
    fitted = next(row for row in rows if row["threshold"] == -0.15)
    assert (fitted["accuracy"], fitted["escalated_ratio"]) == (1.0, 0.5)


def test_the_benchs_settings_are_valid_and_forbid_every_kind() -> None:
    made = settings("builtin:teacher", Tenants("a", "b", "c"), 1234, 8, -0.1)
    assert [m.name for m in made.models] == ["weir-teacher", "weir-student"]
    assert set(KINDS) == set(Kind.__args__)  # type: ignore[attr-defined]


def test_the_simulation_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"ds": ds, "prompt": prompt, "weak_ok": int(weak), "strong_ok": 1}
        for ds in ("mmlu/x", "gsm8k")
        for prompt, weak in zip(questions(60).prompts, questions(60).weak, strict=True)
    ]
    with gzip.open(tmp_path / routellm.FILE, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert bench_fallback.main(["--simulation-only", "--json", "--traces", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    marks = {mark["name"]: mark for mark in report["marks"]}
    assert marks["cost saved at 95 % quality, MMLU"]["value"] is not None
    assert marks["first student answer after the kill"]["value"] is None


def test_without_the_traces_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_fallback.main(["--simulation-only", "--json", "--traces", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "routellm" in report["rows"][0]["reason"]
