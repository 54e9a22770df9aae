"""``weir autoscale status``, ``explain`` and ``diff``, on a database of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.weir.autoscaling.test_keeping import decided, rows
from weir.autoscaling.keeping import keep
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app
from weir.database import migrate, open_database, writing


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Three hours of decisions, one a minute; the last change an hour ago."""
    found = f"sqlite:///{tmp_path / 'weir.db'}"
    engine = open_database(found)
    migrate(engine)
    now_s = time.time()
    made = [
        decided(now_s - 60.0 * (180 - n), 1 if n <= 120 else 2, 1 if n < 120 else 2)
        for n in range(180)
    ]
    with writing(engine) as connection:
        keep(connection, rows(*made))
    engine.dispose()
    return found


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["autoscale", *arguments, "--database", url])


def test_status_has_a_row_for_each_pool(url: str) -> None:
    result = run(url, "status")
    assert result.exit_code == 0, result.output
    assert "0 to 4" in result.output
    (row,) = json.loads(run(url, "status", "--json").output)
    assert row["targets"] == {"m": 2}


def test_explain_now_and_then(url: str) -> None:
    assert "m 2 (unchanged)" in run(url, "explain").output
    assert "m 1 (unchanged)" in run(url, "explain", "--at", "2h").output
    changes = run(url, "explain", "--changes", "5").output
    assert changes.count("m 1 -> m 2") == 1
    assert "dearer" in changes
    assert "nothing yet" in run(url, "explain", "--at", "2020-01-01").output


def test_a_time_that_is_none_is_wrong_usage(url: str) -> None:
    error = run(url, "explain", "--at", "soon").exception
    assert isinstance(error, CommandError)
    assert error.exit_code is ExitCode.USAGE


def test_diff_tells_cost_and_turns(url: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: ray-serve\nparams: {target_ongoing_requests: 1, upscale_delay_s: 0}\n")
    told = json.loads(run(url, "diff", str(file), "--json").output)
    (model,) = told["models"]
    assert model["seconds"] == pytest.approx(179 * 60.0, rel=0.01)
    assert model["usd"] == pytest.approx((119 * 2 + 60 * 4) / 60, rel=0.05)
    assert len(told["steps"]) == 180
    text = run(url, "diff", str(file), "--since", "2h").output
    assert "ray-serve" in text


def test_a_policy_that_there_is_not_is_refused(url: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: nobody\n")
    assert run(url, "diff", str(file)).exit_code != 0
