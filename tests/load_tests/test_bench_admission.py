"""The admission bench's parts, small: they run, and name what they claim."""

from __future__ import annotations

import pytest

from load_tests.bench_admission import capacity_row, fairness_row, gate_rows, marks, queue_row


def test_every_call_is_timed():
    row = queue_row(waiting=50, rounds=20, seed=1)
    for call in ("offer", "next", "progress", "finish", "cancel"):
        assert row[f"{call}_p99_us"] >= row[f"{call}_p50_us"] > 0
    assert capacity_row(replicas=4, rounds=5, seed=1)["capacity_p50_us"] > 0
    assert [row["passage_p50_us"] > 0 for row in gate_rows(rounds=10, seed=1)] == [True, True]


def test_all_tenants_are_backlogged_to_the_end_of_the_fairness_run():
    row = fairness_row(steps=300, seed=1)
    assert row["backlogged_to_the_end"] == 8
    assert row["jains_index"] >= 0.98
    assert row["max_spread_weighted_tokens"] <= row["bound_weighted_tokens"]


def test_marks_carry_the_issues_fairness_targets():
    row = {f"{call}_{p}_us": 10.0 for call in ("offer", "next") for p in ("p50", "p99")}
    fair = {
        "jains_index": 0.97,
        "max_spread_weighted_tokens": 2.0,
        "bound_weighted_tokens": 4.0,
    }
    found = {mark.name: mark for mark in marks(row, row, fair)}
    assert not found["Jain's index among backlogged tenants"].met
    assert found["max-min normalised service over its bound"].value == pytest.approx(0.5)
    assert found["offer + next p50, 100k over 1k waiting"].value == pytest.approx(1.0)
