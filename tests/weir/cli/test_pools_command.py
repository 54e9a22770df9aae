"""`weir pools` and `weir pools set` around one running (fake) platform."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from weir.cli.exits import CommandError, ExitCode
from weir.cli.pools import parse_duration

if TYPE_CHECKING:
    from conftest import Weir


def test_pools_are_a_table_of_roles_and_load(running: Weir) -> None:
    run = running("pools")
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()]
    assert ["pooled:a", "2", "of", "2", "mixed", "20%", "4", "2", "200"] in rows
    assert ["a9", "prefill", "20%", "2", "1", "100"] in rows
    assert "fake-model" not in run.stdout
    (pool,) = json.loads(running("pools", "--json").stdout)
    assert (pool["model"], pool["pool"], len(pool["replicas"])) == ("pooled", "a", 2)


def test_a_replica_is_found_by_how_its_id_begins(running: Weir) -> None:
    run = running("pools", "set", "pooled:a", "a1", "prefill", "--for", "10m")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "a1b2 is prefill\n"
    assert running("pools", "set", "pooled", "a9", "mixed").stdout == "a9 is mixed\n"
    assert (
        "several replicas begin like a" in running("pools", "set", "pooled:a", "a", "mixed").stderr
    )
    assert "there is no replica r1" in running("pools", "set", "pooled:a", "r1", "mixed").stderr


def test_a_number_of_replicas(running: Weir) -> None:
    assert (
        running("pools", "set", "pooled", "--count", "1", "prefill").stdout == "a1b2 is prefill\n"
    )
    assert (
        running("pools", "set", "pooled", "--count", "2", "prefill").stdout == "nothing to change\n"
    )


def test_a_pool_is_split(running: Weir) -> None:
    run = running("pools", "set", "pooled:a", "--split", "1", "--for", "10m")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "a1b2 is prefill\nc3 is decode\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("pooled:a", "a1", "decode"), ExitCode.FAILURE, "it is the last one"),
        (("pooled:a", "a1", "both"), ExitCode.USAGE, "no role 'both'"),
        (("pooled:a", "prefill"), ExitCode.USAGE, "either a replica and a role"),
        (("pooled:a", "a1", "prefill", "--count", "1"), ExitCode.USAGE, "either a replica"),
        (("pooled:a", "prefill", "--split", "1"), ExitCode.USAGE, "--split N alone"),
        (("pooled:a", "a1", "prefill", "--for", "soon"), ExitCode.USAGE, "is not like 90s"),
    ],
)
def test_what_cannot_be_is_said(
    running: Weir, arguments: tuple[str, ...], code: ExitCode, message: str
) -> None:
    run = running("pools", "set", *arguments)
    assert run.returncode == code
    assert message in run.stderr


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "10m", "1.5h", "1d")] == [90, 600, 5400, 86400]
    with pytest.raises(CommandError):
        parse_duration("10")
