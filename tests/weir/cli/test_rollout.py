"""``weir rollout start`` and ``status``, on a database of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app
from weir.database import migrate, open_database
from weir.rollouts.keeper import Keeper
from weir.rollouts.samples import Sample
from weir.rollouts.store import RolloutStore
from weir.rollouts.stream import FIELD, packed

JUDGED = ("--set", "mirror=0.1", "--set", "judge.perplexity.model=third")


class Stream:
    """Of redis-py, what the keeper reads."""

    def __init__(self, samples: list[Sample]) -> None:
        self._entries = [(b"1", {FIELD: packed(samples)})]

    def xread(self, keys: dict[str, bytes | str], count: int) -> object:
        ((key, read),) = keys.items()
        return [(key, self._entries)] if read == "0" else []


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'weir.db'}"
    engine = open_database(found)
    migrate(engine)
    engine.dispose()
    return found


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["rollout", *arguments, "--database", url])


def _look(url: str, samples: list[Sample]) -> None:
    engine = open_database(url)
    Keeper(Stream(samples), RolloutStore(engine)).look()
    engine.dispose()


def test_status_says_what_perplexity_is_and_by_whom(url: str) -> None:
    half = ("--set", "judge.perplexity.share=0.5")
    assert run(url, "start", "m", "next", *JUDGED, *half).exit_code == 0
    scored = [Sample("candidate", float(n), "mirrored", unlikelier=0.02) for n in range(40)]
    _look(url, scored)
    told = run(url, "status", "m").output
    assert "perplexity  40       0.020     0.1" in told
    assert "to third; 50% of mirrored answers" in told
    assert "does third run" not in told
    (listed,) = json.loads(run(url, "status", "--json").output)
    assert listed["settings"]["judge"]["perplexity"]["share"] == 0.5


def test_status_says_so_when_nothing_is_scored(url: str) -> None:
    run(url, "start", "m", "next", *JUDGED)
    _look(url, [Sample("candidate", 1.0, "mirrored", agrees=True)])
    told = run(url, "status", "m").output
    assert "no answer has been scored yet: does third run?" in told


def test_without_it_nothing_is_said_of_it(url: str) -> None:
    run(url, "start", "m", "next")
    _look(url, [Sample("live", 1.0)])
    assert "perplexity" not in run(url, "status", "m").output


def test_what_it_needs_is_named(url: str) -> None:
    error = run(url, "start", "m", "next", *JUDGED[2:]).exception
    assert isinstance(error, CommandError)
    assert error.exit_code is ExitCode.USAGE
    assert "judge.perplexity: needs mirrored requests" in str(error)
