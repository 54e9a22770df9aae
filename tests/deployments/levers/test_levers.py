"""The levers' registry, the bounds around each of them, and the report. No engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deployments.levers.engine import Timed, share_equal
from deployments.levers.registry import Outcome, lever, levers
from deployments.levers.report import as_line, as_page
from deployments.levers.trial import run_bounded

GIB = 2**30


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_every_lever_says_how_it_is_set_and_what_is_measured() -> None:
    known = levers()
    assert len(known) >= 19
    assert all(held.arguments and held.run.__doc__ for held in known.values())
    with pytest.raises(ValueError, match="two levers called 'priority'"):
        lever("priority", "x")(lambda bench: Outcome(True))


def test_an_outcome_comes_back_from_the_process() -> None:
    outcome = run_bounded(
        script("print('noise'); print('LEVER {\"works\": true, \"gain\": 2.0}')"), 30, GIB
    )
    assert outcome == Outcome(True, gain=2.0)


def test_one_that_breaks_says_why() -> None:
    outcome = run_bounded(script("raise NotImplementedError('not on this device')"), 30, GIB)
    assert outcome == Outcome(False, note="NotImplementedError: not on this device")
    silent = run_bounded(script("import os; os._exit(7)"), 30, GIB)
    assert silent == Outcome(False, note="it ended with code 7")


def test_one_that_hangs_is_ended_with_its_children() -> None:
    text = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; "
    outcome = run_bounded(script(text + "time.sleep(60)'])"), 0.5, GIB)
    assert not outcome.works
    assert "within 0.5 s" in outcome.note


def test_one_that_grows_is_ended() -> None:
    outcome = run_bounded(
        script("x = bytearray(200 << 20); import time; time.sleep(30)"), 20, 100 << 20
    )
    assert not outcome.works
    assert "GiB" in outcome.note


def test_equal_answers_are_counted() -> None:
    assert share_equal(Timed([[1, 2], [3]], 1.0), Timed([[1, 2], [4]], 1.0)) == 0.5


def test_the_page_has_a_row_for_each() -> None:
    known = levers()
    outcomes = {
        "priority": Outcome(True, None, 2.5, "steps"),
        "kv-int8": Outcome(False, 0.0, note="garbage | really"),
    }
    page = as_page(known, outcomes, "an engine")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    assert [row.split(" | ")[2] for row in rows] == ["yes", "no"]
    assert "2.50 ×" in rows[0]
    assert "garbage \\| really" in rows[1]
    assert "2.50 ×" in as_line("priority", outcomes["priority"])
    assert "weir levers --write docs/levers.md" in page
    hasty = as_page(known, outcomes, "an engine", quick=True)
    assert "weir levers --quick --write docs/levers.md" in hasty
    assert "timed once" in hasty
    assert "timed once" not in page


def test_an_unknown_lever_names_those_there_are() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "deployments.levers", "--only", "warp"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "no lever 'warp'" in run.stderr
    assert "prefix-caching" in run.stderr
