"""What the LoRA bench counts, and its marks."""

from __future__ import annotations

import json
from pathlib import Path

from load_tests.bench_lora import AWARE, ROUND_ROBIN, marks_of
from load_tests.lora.asking import Answer, Question, draw, equal, mixed_up
from load_tests.lora.files import write_adapters
from load_tests.lora.virtual import Traffic, play
from weir.adapters import inspect_adapter

ALONE = {Question("m", "p"): "base", Question("m:a", "p"): "one", Question("m:b", "p"): "two"}


def test_another_ones_answer_is_mixed_up_and_nobodys_is_not() -> None:
    asked = Question("m:a", "p")
    answers = [Answer(asked, text) for text in ("one", "two", "base", "nobody's")]
    answers.append(Answer(asked, error="status 503"))
    assert mixed_up(answers, ALONE) == 2
    assert equal(answers, ALONE) == 0.25


def test_the_first_models_are_asked_most() -> None:
    drawn = draw(["a", "b", "c"], ["p"], 1000, 1)
    counts = [sum(question.model == name for question in drawn) for name in "abc"]
    assert counts == sorted(counts, reverse=True)
    assert drawn == draw(["a", "b", "c"], ["p"], 1000, 1)


def test_its_adapters_can_be_loaded_and_differ(tmp_path: Path, repo_root: Path) -> None:
    model = repo_root / "platform" / "weir" / "artifacts" / "teacher"
    files = [inspect_adapter(str(path)) for path in write_adapters(model, tmp_path, 3, 7)]
    assert len({each.digest for each in files}) == 3
    assert {each.rank for each in files} == {8}
    assert json.loads((tmp_path / "a00" / "adapter_config.json").read_text())["lora_alpha"] == 8


def test_marks_compare_medians() -> None:
    def row(system: str, ttft: float, loads: float, mixed: int = 0) -> dict[str, object]:
        figures = {"ttft_p99_ms": ttft, "loads_per_adapter_request": loads}
        return {"system": system, "errors": 0, "mixed_up": mixed, **figures}

    rows = [row(AWARE, 40.0, 0.2), row(ROUND_ROBIN, 80.0, 0.4, 1)]
    ttft, loads, mixed, errors = marks_of(rows)
    assert (ttft.value, loads.value, mixed.value, errors.value) == (0.5, 0.5, 1.0, 0.0)
    assert [mark.met for mark in (ttft, loads, mixed, errors)] == [True, True, False, True]


def test_knowing_where_adapters_are_costs_neither_loads_nor_waits() -> None:
    """Nobody waits for a slot that somebody uses while the other replica has a free one."""
    traffic = Traffic(requests=600)
    aware, other = (play(policy, traffic).row() for policy in ("weir", "round-robin"))
    assert aware["loads_per_adapter_request"] < 0.85 * other["loads_per_adapter_request"]
    assert aware["ttft_p99_ms"] < 1.1 * other["ttft_p99_ms"]
