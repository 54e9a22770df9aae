"""Replicas come and go on a platform as users start it; no answer loses a token."""

from __future__ import annotations

import pytest

from load_tests.bench_scaling import STUB, run
from load_tests.scaling.live import Course

pytestmark = pytest.mark.e2e


def test_replicas_come_and_go_and_no_answer_loses_a_token() -> None:
    """From none to one and two, through a notice of interruption, and back to one."""
    live = run(STUB, Course(streams=50, tokens=1200, clients=64, short_tokens=100))
    rows = {step.name: step.row() for step in live.steps}
    assert list(rows) == ["0 to 1", "1 to 2", "spot notice", "2 to 1"]
    assert {name: row["failed"] for name, row in rows.items()} == dict.fromkeys(rows, 0)
    assert rows["2 to 1"]["moved"] > 0
    assert rows["spot notice"]["moved"] > 0
    assert any(change["targets"] == {"spot": 1, "steady": 1} for change in live.changes)
    assert all(change["explanation"]["because"] for change in live.changes)
