"""The number of replicas from what replicas say, and how settings reach Serve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.autoscaling import ONGOING, replicas_for_load, wanted_replicas


def context(current: int, reported: dict[str, float] | None, target: int = 1) -> Any:
    return SimpleNamespace(
        current_num_replicas=current,
        target_num_replicas=target,
        aggregated_metrics=None if reported is None else {ONGOING: reported},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 8.0),
    )


@pytest.mark.parametrize(("ongoing", "replicas"), [(0, 1), (8, 1), (8.1, 2), (16, 2), (80, 10)])
def test_nobody_has_more_than_its_target(ongoing: float, replicas: int) -> None:
    assert wanted_replicas(ongoing, 8.0) == replicas


def test_the_sum_over_the_replicas_decides() -> None:
    assert replicas_for_load(context(2, {"a": 20.0, "b": 4.0})) == (3, {})


def test_a_replica_that_has_not_reported_counts_as_the_others() -> None:
    assert replicas_for_load(context(2, {"a": 16.0})) == (4, {})


def test_without_reports_nothing_changes() -> None:
    assert replicas_for_load(context(2, None, target=3)) == (3, {})
    assert replicas_for_load(context(0, {}, target=1)) == (1, {})
