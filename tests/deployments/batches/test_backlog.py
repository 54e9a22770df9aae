"""What is left of batches, as the autoscaler is told of it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from deployments.batches.backlog import Job, backlog_of, backlogs
from deployments.batches.jobs import BatchTable
from deployments.batches.results import Result, ResultTable
from tests.deployments.batches.begun import begin, begin_mixed
from weir.autoscaling.report import Backlog, Window

HOUR_S = 3600.0


def test_what_is_left_follows_from_what_lines_have_taken_so_far(database: Engine) -> None:
    number = begin(database, 1, 100, "m", HOUR_S)
    window = Window(0.9 * HOUR_S, 100 * 100, 100 * 256)
    assert backlogs(database, {"m"}, 0.0)["m"] == Backlog(100, HOUR_S, (window,))
    results = [Result(line, 0, 1, line == 4, 30, 10, 5, "m") for line in range(1, 5)]
    assert ResultTable(database).record(number, "part", results)
    left = backlogs(database, {"m"}, 1800.0)["m"]
    (window,) = left.windows
    assert (left.lines, window.computed_tokens, window.output_tokens) == (96, 96 * 20, 96 * 5)
    assert left.output_tokens_per_s == pytest.approx(96 * 5 / (0.9 * 1800.0))


def test_only_batches_that_run_count_and_only_for_models_that_scale(database: Engine) -> None:
    begin(database, 1, 10, "m:lora", HOUR_S)
    begin(database, 2, 10, "mm", HOUR_S)
    begin(database, 3, 10, "other", HOUR_S)
    begin(database, 4, 10, "m", 5.0)
    begin(database, 5, 10, "m", HOUR_S)
    BatchTable(database).cancel("t", "batch_5", 3.0)
    found = backlogs(database, {"m"}, 10.0)
    assert {name: each.lines for name, each in found.items()} == {"m": 10}


def test_a_batch_for_several_models_counts_for_each_with_its_own_lines(database: Engine) -> None:
    number = begin_mixed(database, 1, {"m": 60, "m:lora": 10, "n": 30}, HOUR_S)
    found = backlogs(database, {"m", "n"}, 0.0)
    assert {name: each.lines for name, each in found.items()} == {"m": 70, "n": 30}
    results = [
        *(Result(line, 0, 1, False, 300, 100, 50, "m") for line in range(1, 21)),
        *(Result(line, 0, 1, False, 3, 1, 2, "n") for line in range(71, 101)),
    ]
    assert ResultTable(database).record(number, "part", results)
    left = backlogs(database, {"m", "n"}, 0.0)
    assert left.keys() == {"m"}
    (window,) = left["m"].windows
    # Forty lines as those that are done were, and ten of the adapter, of which nothing is known.
    assert (left["m"].lines, window.computed_tokens) == (50, 40 * 200 + 10 * 100)
    assert window.output_tokens == 40 * 50 + 10 * 256


def test_the_window_that_asks_for_most_counts() -> None:
    soon, late = Job(HOUR_S, 10, 3600.0, 360.0), Job(10 * HOUR_S, 90, 36_000.0, 360.0)
    both = backlog_of([late, soon])
    assert (both.lines, both.first_s) == (100, HOUR_S)
    assert [each.computed_tokens for each in both.windows] == [3600.0, 39_600.0]
    assert both.computed_tokens_per_s == pytest.approx(39_600 / (9 * HOUR_S))
    assert both.output_tokens_per_s == pytest.approx(0.1 / 0.9)


def test_windows_that_end_together_are_one() -> None:
    jobs = [Job(HOUR_S + 60.0 * number, 10, 100.0, 10.0) for number in range(30)]
    both = backlog_of(jobs)
    assert both.lines == 300
    assert [each.computed_tokens for each in both.windows] == [1700.0, 3000.0]
    assert both.windows[1].left_s == pytest.approx(0.9 * (HOUR_S + 60.0 * 17))


def test_a_window_that_is_all_but_over_does_not_ask_for_the_whole_fleet() -> None:
    assert backlog_of([Job(1.0, 10, 6000.0, 600.0)]).computed_tokens_per_s == pytest.approx(10.0)
