"""The bench of rollouts: what it plays, and what it says of it."""

from __future__ import annotations

from load_tests.bench_rollout import SETTINGS, marks_of, row_of
from load_tests.rollouts.playing import CANDIDATES, play


def test_each_candidate_ends_as_it_should() -> None:
    for name, (version, wanted) in CANDIDATES.items():
        played = play(version, SETTINGS, 20.0, 1)
        assert played.state == wanted, name
        assert played.exposed < played.answers


def test_a_row_and_its_marks() -> None:
    version, _ = CANDIDATES["fails 1 of 20"]
    played = [play(version, SETTINGS, 20.0, seed) for seed in (1, 2)]
    row = row_of("fails 1 of 20", "rolled back", played)
    assert row["rolled_back"] == 2
    assert row["deciding"] == "errors"
    marks = {mark.name: mark for mark in marks_of([row])}
    assert marks["fails 1 of 20: promoted"].met
    missed = marks_of([{**row, "should be": "promoted"}])
    assert not any(mark.met for mark in missed)
