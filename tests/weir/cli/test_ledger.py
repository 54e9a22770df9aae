"""``weir usage`` and ``weir cost report``, on a database of their own."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.weir.ledger.records import HOUR_MS, NOON_MS, usage_record
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app
from weir.database import migrate, open_database
from weir.ledger import ReplicaTime
from weir.ledger.rates import Rate
from weir.ledger.store import Arrived, store


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    url = f"sqlite:///{tmp_path / 'weir.db'}"
    engine = open_database(url)
    migrate(engine)
    up = ReplicaTime(replica="a", model="m", pool="", from_ms=NOON_MS, until_ms=NOON_MS + HOUR_MS)
    records = [usage_record(n, tenant="one" if n < 3 else "two", label="=a,b") for n in range(4)]
    rates = {("m", ""): Rate(2_000_000_000, 2_000_000_000)}
    store(engine, [Arrived("o", 0, 5, [*records, up])], rates, 1)
    engine.dispose()
    return url


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_usage(database: str) -> None:
    told = _run("usage", "--by", "tenant,day", "--database", database)
    heads, *rows = [line.split() for line in told.splitlines()]
    assert heads[:3] == ["TENANT", "DAY", "REQUESTS"]
    assert [row[:3] for row in rows] == [["one", "2024-10-04", "3"], ["two", "2024-10-04", "1"]]
    (two,) = json.loads(_run("usage", "--tenant", "two", "--json", "--database", database))
    assert (two["tenant"], two["prompt_tokens"], two["usd"]) == ("two", 100, "0.000001000")
    table = list(csv.DictReader(io.StringIO(_run("usage", "--by", "label", "--csv",
                                                 "--database", database))))  # fmt: skip
    assert (table[0]["label"], table[0]["output_tokens"]) == ("'=a,b", "40")
    assert "Nothing" in _run("usage", "--since", "2030-01-01", "--database", database)


def test_cost_report(database: str, tmp_path: Path) -> None:
    told = json.loads(_run("cost", "report", "--json", "--database", database))
    borne = sum(Decimal(row["cost_usd"]) for row in told["rows"])
    assert borne + Decimal(told["idle_usd"]) == Decimal(told["paid_usd"]) == 2
    shown = _run("cost", "report", "--by", "day", "--database", database)
    assert "idle: m" in shown
    assert "Saved:" in shown
    rows = list(csv.reader(io.StringIO(_run("cost", "report", "--csv", "--database", database))))
    assert [row[0] for row in rows] == ["tenant", "one", "two", "idle: m", "paid"]
    pytest.importorskip("matplotlib")
    picture = tmp_path / "cost.png"
    _run("cost", "report", "--picture", str(picture), "--database", database)
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    "arguments",
    [("usage", "--by", "colour"), ("cost", "report", "--by", "colour"),
     ("usage", "--since", "soon"), ("cost", "report", "--until", "soon"), ("usage", "--by", ",")],
)  # fmt: skip
def test_what_is_wrong_is_said(database: str, arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--database", database])
    assert isinstance(result.exception, CommandError), result.output
    assert result.exception.exit_code is ExitCode.USAGE
