"""The bench of fault schedules: its figures come from the stories."""

from __future__ import annotations

import contextlib
from unittest.mock import patch

import pytest

from load_tests import bench_faults
from load_tests.bench_faults import play_seeds, report
from load_tests.faults.planted import PLANTED


def test_it_counts_what_happened() -> None:
    part = play_seeds(range(4))
    assert part.failed == ()
    assert part.counts["requests"] >= 12


def test_a_broken_invariant_is_told_with_its_seed() -> None:
    plant, rules = PLANTED["stream fed twice"]
    with plant():
        failed = play_seeds(range(3)).failed
    assert failed
    assert {rule for _, rule, _ in failed} <= rules
    assert {seed for seed, _, _ in failed} <= {0, 1, 2}


def test_the_report_has_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_faults, "MOST_TO_FIND", 1)
    unplanted = {"nothing": (contextlib.nullcontext, frozenset({"text"}))}
    with patch.object(bench_faults, "PLANTED", unplanted):
        told = report(seed=3, schedules=4, processes=1)
    marks = {mark.name: mark for mark in told.marks}
    assert not marks["schedules"].met
    assert marks["schedules with a broken invariant"].met
    assert not marks["planted bugs found"].met, "there was none to find"
