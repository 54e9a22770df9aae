"""The bench of tracing: ratios within rounds, every mark, and what one trace costs."""

from __future__ import annotations

import pytest

from load_tests.bench_tracing import Window, marks_of, ratio, rows_of
from load_tests.tracing.single import single_rows


def _window(req_per_s: float) -> Window:
    return Window(req_per_s, 10.0, 1000 / req_per_s, 0)


def test_ratios_are_of_one_round() -> None:
    """A machine that becomes slower from round to round makes no difference."""
    speeds = [100.0, 80.0, 60.0]
    rounds = {
        "off": [_window(s) for s in speeds],
        "1 %": [_window(s) for s in speeds],
        "100 %": [_window(0.98 * s) for s in speeds],
    }
    assert ratio(rounds, "100 %", lambda w: w.req_per_s) == pytest.approx(0.98)
    marks = marks_of("engine", rounds, "")
    assert [(mark.value, mark.met) for mark in marks] == [
        (1.0, True),
        (pytest.approx(0.98), True),
    ]
    rows = rows_of("engine", rounds, {"exports": 3.0})
    assert [row["system"] for row in rows] == ["off", "1 %", "100 %"]
    assert rows[2]["exports"] == 3.0


def test_a_platform_that_does_not_start_leaves_its_marks() -> None:
    marks = marks_of("gateway", None, "no engine")
    assert [(mark.value, mark.reason) for mark in marks] == [(None, "no engine")] * 2


def test_what_is_not_kept_costs_a_fraction_of_what_is() -> None:
    rows = {row["step"]: row["p50_us"] for row in single_rows(200)}
    assert rows["end one that is not kept"] < rows["end one that is kept"] / 4
