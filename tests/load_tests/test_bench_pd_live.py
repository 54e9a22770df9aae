"""What ``weir bench pd --live`` makes of what it measured."""

from __future__ import annotations

from typing import Any

from load_tests.bench_pd import live_marks
from load_tests.disaggregation.live import LIVE_FLEETS, MIXED, SPLIT, Live, Placed, _delta


def _live(number: int, **more: Any) -> Live:
    measured: dict[str, Any] = {
        "answers": ("a", "b"),
        "first_s": [0.2, 0.3, 0.4],
        "gaps_s": [0.002] * 90 + [0.2] * 10,
        "long_first_s": [0.4],
        "counters": {},
        "errors": (),
        "placed": Placed(2, True),
    }
    return Live(LIVE_FLEETS[number], **{**measured, **more})


def test_marks_compare_the_split_fleet_with_the_mixed_one() -> None:
    mixed = _live(0)
    counters = {
        "vllm:external_prefix_cache_queries_total prefill#1": 200.0,
        "vllm:external_prefix_cache_hits_total prefill#1": 0.0,
        "vllm:external_prefix_cache_queries_total decode#1": 200.0,
        "vllm:external_prefix_cache_hits_total decode#1": 150.0,
        "weir_handoffs_total taken": 7.0,
    }
    split = _live(
        1, answers=("a", "c"), first_s=[0.5], gaps_s=[0.002] * 90 + [0.05] * 10, counters=counters
    )
    rows = [mixed.row(mixed), split.row(mixed)]
    same, reused, gap = live_marks(rows)
    assert (same.value, reused.value, gap.value) == (0.5, 0.75, 0.25)
    assert (same.met, reused.met, gap.met) == (False, False, True)
    assert rows[0]["answers_identical_ratio"] == 1.0
    assert rows[0]["prompt_tokens_not_computed_again_ratio"] is None
    assert rows[1]["prompts_handed_over"] == 7.0
    assert {(row["replicas"], row["cores_per_replica"]) for row in rows} == {(2, 1)}
    assert rows[0]["gaps_within_target_ratio"] == 0.9
    assert abs(rows[1]["added_ttft_p50_ms"] - 200) < 1e-6


def test_what_was_not_measured_is_said() -> None:
    marks = live_marks([{"system": MIXED, "itl_p99_ms": 5.0}])
    assert [mark.value for mark in marks] == [None, None, None]
    assert all(mark.reason for mark in marks)
    assert {fleet.name for fleet in LIVE_FLEETS} >= {MIXED, SPLIT}
    assert {fleet.replicas for fleet in LIVE_FLEETS} == {2}, "equal hardware"


def test_only_text_counts_as_output() -> None:
    assert _delta(b'data: {"choices":[{"delta":{"content":"w"}}]}\n') == "w"
    assert _delta(b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n') == ""
    assert _delta(b'data: {"choices":[],"usage":{}}\n') == ""
    assert _delta(b"data: [DONE]\n") == _delta(b": skipped\n") == ""
