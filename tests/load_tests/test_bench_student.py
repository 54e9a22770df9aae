"""The student bench's arithmetic, on figures that are made up."""

from pathlib import Path
from typing import Any

import pytest

from load_tests import bench_student
from load_tests.sim.calibrations import H100_8B
from load_tests.student.engine_run import Stopwatch
from load_tests.student.engines import Engine, measure
from load_tests.student.pair import H100_0_6B, expected_tokens, pair_rows, speculative_rows


def _decode(rate: float, proposed: float, accepted: float) -> dict[str, Any]:
    one = {
        "batch": 1,
        "decode_tokens_per_s": rate,
        "model_share": 0.25,
        "answers": [[1, 2], [3, 4]],
        "num_draft_tokens": proposed,
        "num_accepted_tokens": accepted,
    }
    return {"decode": [one]}


def test_speculation_is_compared_batch_by_batch() -> None:
    results = {
        "teacher": _decode(100, 0, 0),
        "teacher, student proposes 3": _decode(150, 30, 24),
    }
    results["teacher, student proposes 3"]["decode"][0]["answers"] = [[1, 2], [3, 9]]
    (row,) = bench_student._speculative(results, "teacher, student proposes 3")
    assert row["speedup"] == pytest.approx(1.5)
    assert row["acceptance"] == pytest.approx(0.8)
    assert row["identical_answers"] == 0.5
    assert bench_student._speculative({"teacher": _decode(1, 0, 0)}, "x") == []


def test_expected_tokens_are_the_geometric_sum() -> None:
    assert expected_tokens(0.0, 3) == 1.0
    assert expected_tokens(1.0, 3) == 4.0
    assert expected_tokens(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)


def test_the_small_model_of_the_pair_is_faster_and_overhead_hides_it() -> None:
    assert H100_0_6B.fixed_s < H100_8B.fixed_s
    for row in pair_rows():
        assert 1 < row["ratio"] < row["ratio_without_overhead"]


def test_speculation_pays_less_in_a_larger_batch() -> None:
    speedups = [row["speedup"] for row in speculative_rows(0.8, 3)]
    assert speedups == sorted(speedups, reverse=True)
    assert speedups[0] > 1.5


def test_a_stopwatch_counts_only_what_it_wraps() -> None:
    watch = Stopwatch()
    assert watch.around(lambda value: value + 1)(1) == 2
    assert watch.seconds > 0
    with pytest.raises(ZeroDivisionError):
        watch.around(lambda: 1 / 0)()


def test_flops_are_two_per_weight_and_the_attended_pairs(tmp_path: Any) -> None:
    import json

    config = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": 16,
        "vocab_size": 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = 2 * (8 * 8 + 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16) + 80
    assert bench_student._flops(str(tmp_path), 0) == 2 * weights
    assert bench_student._flops(str(tmp_path), 100) == 2 * weights + 2 * 4 * 8 * 100


@pytest.mark.engine
def test_a_quantized_teacher_runs_on_the_engine(tmp_path: Path) -> None:
    from fallback.quantize import command

    out = tmp_path / "w8a8"
    assert command.main(["builtin:teacher", "--scheme", "w8a8", "--out", str(out)]) == 0
    prompts, examples = bench_student._prompts(bench_student.ARTIFACTS / "teacher", 3, 12)
    found = measure(
        Engine("w8a8", str(out), {"dtype": "bfloat16"}), prompts, [12], seed=1, repeats=1
    )
    assert found["decode"][0]["tokens"] > 20
    assert 0 < found["decode"][0]["model_share"] < 1
    assert bench_student._right(found, examples) >= 0.5
