"""Decisions in the database, in words, and replayed under another policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

import weir.autoscaling.policies  # noqa: F401 - registers them
from weir.autoscaling.deciding import Decided
from weir.autoscaling.explaining import explained
from weir.autoscaling.keeping import Keeper, Kept, find, forget_before, in_order, keep
from weir.autoscaling.policy_file import read_policy
from weir.autoscaling.registry import build_policy
from weir.autoscaling.replay import compared, replay
from weir.autoscaling.report import (
    Alternative,
    Capacity,
    Decision,
    Demand,
    Explanation,
    ModelState,
    PoolState,
)
from weir.database import migrate, open_database, reading, writing
from weir.errors import ConfigError

POOL = PoolState("m", Capacity(2000.0, 400.0), 2.0, ready=1, least=0, most=4, start_s=30.0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(made)
    yield made
    made.dispose()


def decided(at_s: float, before: int, after: int, rate: float = 1.0) -> Decided:
    demand = Demand(rate, 100 * rate, 50 * rate, 3, 300.0, 150.0, 4.0, 0.5, prompt_tokens_per_s=200)
    explanation = Explanation(
        {"work": 1.5}, "enough for the work", (Alternative({"m": 3}, 6.0, "dearer"),)
    )
    state = ModelState("m", {"standard": demand}, (replace(POOL, ready=before),))
    decision = Decision({"m": after}, explanation)
    return Decided(state, at_s, {"m": after}, {"m": before}, decision, {"m": "model-m"})


def rows(*each: Decided) -> list[Kept]:
    keeper = Keeper("weir")
    return [row for one in each for row in keeper.chosen([one])]


def test_what_is_kept_comes_back_as_it_was(engine: Engine) -> None:
    (row,) = rows(decided(1000.0, 1, 2))
    with writing(engine) as connection:
        keep(connection, [row])
        (back,) = find(connection, "m")
    assert back == replace(row, number=1)
    assert back.state.pools[0].current == 1


def test_changes_are_kept_and_the_rest_once_a_minute() -> None:
    keeper, kept = Keeper("weir"), []
    for second in range(0, 300, 5):
        chosen = keeper.chosen([decided(float(second), 1, 2 if second == 155 else 1)])
        keeper.kept(chosen)
        kept += chosen
    assert [row.at_s for row in kept] == [0.0, 60.0, 120.0, 155.0, 215.0, 275.0]
    assert [row.changed for row in kept].count(True) == 1


def test_they_are_found_by_time_and_forgotten(engine: Engine) -> None:
    made = rows(*(decided(100.0 * n, n, n + 1) for n in range(1, 6)))
    with writing(engine) as connection:
        keep(connection, made)
        assert [r.at_s for r in find(connection, before_s=350.0, most=2)] == [300.0, 200.0]
        assert [r.at_s for r in find(connection, below=2)] == [100.0]
        assert find(connection, "other") == []
        forget_before(connection, 250.0)
    with reading(engine) as connection:
        assert [r.at_s for r in in_order(connection, 0.0, 450.0)] == [300.0, 400.0]


def test_a_decision_in_words() -> None:
    text = explained(rows(decided(1_795_830_000.0, 1, 2))[0])
    for part in (
        "2026-11-28",
        "m 1 -> m 2",
        "4.00 USD per hour",
        "enough for the work",
        "3 wait",
        "m 3, 6.00 USD per hour: dearer",
        "of 0 to 4",
    ):
        assert part in text


class Fixed:
    """Wants so many, and notes what it saw of replicas."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen: list[tuple[int, int]] = []

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        self.seen.append((model.pools[0].ready, model.pools[0].starting))
        return Decision({"m": self.wanted}, Explanation(because="it is fixed"))


def test_another_policy_sees_the_replicas_that_it_would_have_had() -> None:
    kept = rows(*(decided(1000.0 + 10.0 * n, 1, 1 + n % 2) for n in range(6)))
    kept = [replace(row, targets={"m": 2}, usd_per_hour=4.0) for row in kept]
    policy = Fixed(3)
    steps = replay(policy, [replace(kept[0], at_s=1000.0 + 10.0 * n) for n in range(6)])
    # It has one at first; two more are asked for, and are there 30 s later.
    assert policy.seen == [(1, 0), (1, 2), (1, 2), (3, 0), (3, 0), (3, 0)]
    assert {step.other["m"] for step in steps} == {3}
    (both,) = compared(steps)
    assert both.seconds == 50.0
    assert both.usd == pytest.approx(4.0 * 50 / 3600)
    assert both.other_usd == pytest.approx(6.0 * 50 / 3600)
    assert both.differing_s == 50.0
    assert (both.changes, both.other_changes) == (0, 0)


def test_a_gap_is_not_counted() -> None:
    kept = rows(decided(0.0, 1, 2), decided(10_000.0, 1, 2))
    assert compared(replay(build_policy("weir"), kept))[0].seconds == 0.0


def test_a_policy_file(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policy: kpa\nparams: {target: 4}\n")
    assert read_policy(file)[0] == "kpa"
    file.write_text("autoscaling: {policy: ray-serve, period_s: 3}\n")
    assert read_policy(file)[0] == "ray-serve"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("policy: kap\n", "kpa"),
        ("policy: kpa\nparams: {targt: 4}\n", "targt"),
        ("polcy: kpa\n", "polcy"),
        ("policy: kpa\nparams: 3\n", "mapping"),
    ],
)
def test_a_policy_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_policy(file)
