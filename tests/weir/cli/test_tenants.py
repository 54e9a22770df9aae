"""``weir tenants`` and ``weir keys``, on a database of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from weir.cli.directory import changes_of
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app
from weir.database import open_database
from weir.settings import TenantSettings
from weir.tenancy import Directory, LiveDirectory, hash_key
from weir.tenancy.audit import read_audit
from weir.tenancy.database import TenantStore

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WEIR_DATABASE_URL", raising=False)

    def invoke(*arguments: str, code: ExitCode = ExitCode.OK) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if code is ExitCode.OK:
            assert result.exit_code == 0, (result.output, result.exception)
            return result.stdout
        assert isinstance(result.exception, CommandError), result.output
        assert result.exception.exit_code is code
        return result.exception.message

    return invoke


@pytest.fixture
def store(tmp_path: Path) -> TenantStore:
    """The same database; a command has made it before."""
    return TenantStore(open_database(f"sqlite:///{tmp_path / 'home' / 'weir.db'}"))


def test_a_tenant_from_its_beginning_to_its_end(run: Run, store: TenantStore) -> None:
    assert "no tenants" in run("tenants", "list")
    fields = ("weight=2", "quotas.requests_per_minute=60", "budget.usd_per_month=20.5")
    given = [part for each in fields for part in ("--set", each)]
    assert "acme is created (version 1)" in run("tenants", "create", "acme", *given)
    row = run("tenants", "list").splitlines()[1]
    for told in ("acme", "database", "yes", "all", "20.5 USD a month", "requests_per_minute=60"):
        assert told in row
    shown = json.loads(run("tenants", "show", "acme"))
    assert (shown["weight"], shown["budget"]["usd_per_month"]) == (2.0, "20.5")
    assert "(version 2)" in run("tenants", "update", "acme", "--set", "weight=null")
    changed = json.loads(run("tenants", "update", "acme", "--set", "models=[m, n]", "--json"))
    assert (changed["weight"], changed["models"], changed["version"]) == (None, ["m", "n"], 3)
    told = run("tenants", "update", "acme", "--if-version", "1", code=ExitCode.CONFLICT)
    assert "version 3 now" in told
    run("tenants", "delete", "acme", "--if-version", "3")
    assert "There is no tenant 'acme'" in run("tenants", "show", "acme", code=ExitCode.FAILURE)
    actors = {each.actor for each in read_audit(store.engine).items}
    assert len(actors) == 1
    assert actors.pop().startswith("cli:")


def test_a_key_is_shown_when_it_is_made_and_never_again(run: Run, store: TenantStore) -> None:
    run("tenants", "create", "acme")
    made = run("keys", "create", "acme", "--name", "ci", "--endpoint", "chat", "--model", "m")
    secret = made.split()[0]
    key = store.keys("acme").items[0].key
    assert key.digest == hash_key(secret)
    assert (key.name, key.endpoints, key.models) == ("ci", {"chat"}, {"m"})
    live = LiveDirectory(Directory.of((), [store.tenant("acme").tenant], [key]), lambda: 0.0)
    assert live.authenticate(f"Bearer {secret}").key == key
    table = run("keys", "list", "acme")
    for told in (key.id, "acme", "ci", "tenant-user", "good", "chat, m"):
        assert told in table
    for listed in (table, run("keys", "list", "--json")):
        assert secret not in listed
        assert key.digest not in listed
    rotated = json.loads(run("keys", "rotate", key.id, "--overlap-hours", "1", "--json"))
    assert rotated["replaces"] == key.id
    assert rotated["key"].startswith(f"weir_{rotated['id']}_")
    assert "good until" in run("keys", "list")
    assert "is revoked" in run("keys", "revoke", rotated["id"])
    assert "revoked" in run("keys", "list")
    assert "whole key" in run("keys", "revoke", secret, code=ExitCode.USAGE)


def test_what_is_refused_says_why(run: Run) -> None:
    run("tenants", "create", "acme")
    again = run("tenants", "create", "acme", code=ExitCode.CONFLICT)
    assert again == "The tenant 'acme' exists already."
    for arguments, told in (
        (("tenants", "create", "A"), "small letters"),
        (("tenants", "update", "acme", "--set", "weight=-1"), "weight: "),
        (("tenants", "update", "acme", "--set", "weight"), "is not FIELD=VALUE"),
        (("keys", "create", "acme", "--role", "king"), "role: "),
    ):
        assert told in run(*arguments, code=ExitCode.USAGE)
    for arguments in (("keys", "create", "nobody"), ("keys", "revoke", "nothing")):
        assert "There is no" in run(*arguments, code=ExitCode.FAILURE)
    away = ("tenants", "list", "--database", "postgresql://weir@127.0.0.1:1/x")
    assert "does not answer" in run(*away, code=ExitCode.FAILURE)


def test_tenants_of_the_settings_are_listed_too(run: Run, store: TenantStore) -> None:
    run("tenants", "list")
    demo = TenantSettings(id="demo", key_sha256=(hash_key("k"),), models=("m",))
    store.put_settings_tenants("settings", (demo,))
    assert run("tenants", "list").splitlines()[1].split()[:2] == ["demo", "settings"]
    shown = json.loads(run("tenants", "show", "demo"))
    assert (shown["from"], shown["models"]) == ("settings", ["m"])
    assert "key_sha256" not in shown
    told = run("tenants", "update", "demo", "--set", "weight=1", code=ExitCode.FAILURE)
    assert "is defined in the settings, and is changed there" in told


def test_fields_are_given_by_their_paths() -> None:
    given = ["a.b=1", "a.c=x y", "d=[1, 2]", "e=null", "f=k=v"]
    assert changes_of(given) == {"a": {"b": 1, "c": "x y"}, "d": [1, 2], "e": None, "f": "k=v"}
    for wrong in ("a", "=1", "a..b=1", "a={"):
        with pytest.raises(CommandError):
            changes_of([wrong])
    with pytest.raises(CommandError, match="given twice"):
        changes_of(["a=1", "a.b=2"])
