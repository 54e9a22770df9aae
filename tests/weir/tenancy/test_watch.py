"""What changes in the database is in force a moment later, and what is known outlives it."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from weir.database import migrate, open_database, writing
from weir.errors import AuthenticationError, DatabaseAwayError
from weir.settings import TenantFields, TenantSettings
from weir.tenancy import Directory, LiveDirectory, hash_key
from weir.tenancy.database import TenantStore
from weir.tenancy.fields import KeyFields
from weir.tenancy.known import Known
from weir.tenancy.watch import NOTE_USES_S, DirectoryWatch

LISTED = (TenantSettings(id="demo", key_sha256=(hash_key("k"),)),)
_LIMIT_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Site:
    """A gateway's directory, its watch, and the database that others change."""

    def __init__(self, engine: Engine, file: Path | None = None) -> None:
        self.store = TenantStore(engine)
        self.clock = Clock()
        self.live = LiveDirectory(Directory.of(LISTED), time.time)
        self.seen = TenantStore(engine)
        self.watch = DirectoryWatch(self.live, self.seen, LISTED, file, 0.02, self.clock)

    def knows(self, secret: str) -> bool:
        try:
            return bool(self.live.authenticate(f"Bearer {secret}"))
        except AuthenticationError:
            return False


@pytest.fixture
def site(database: Engine, tmp_path: Path) -> Site:
    return Site(database, tmp_path / "directory.json")


def away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise DatabaseAwayError("The database does not answer now.")

    for name in ("revision", "changes_since", "note_uses"):
        monkeypatch.setattr(site.seen, name, refuse)


def test_each_look_brings_what_changed(site: Site) -> None:
    assert site.watch.look()
    assert site.knows("k")
    site.store.create_tenant("me", "acme", TenantFields(weight=2.0))
    made = site.store.create_key("me", "acme", KeyFields())
    assert not site.knows(made.secret)
    before = site.live.directory
    assert site.watch.look()
    assert site.knows(made.secret)
    assert site.live.weight("acme") == 2.0
    assert "acme" not in before.tenants, "the one before stays as it was"
    site.store.update_tenant("me", "acme", {"weight": 3, "models": ["m"]})
    site.watch.look()
    assert site.live.weight("acme") == 3.0
    caller = site.live.authenticate(f"Bearer {made.secret}")
    assert caller.tenant.models == frozenset({"m"})
    site.store.revoke_key("me", made.stored.key.id)
    site.watch.look()
    assert not site.knows(made.secret)
    assert site.live.directory.revision == site.store.revision()


def test_a_look_that_finds_nothing_replaces_nothing(site: Site) -> None:
    site.watch.look()
    before = site.live.directory
    site.watch.look()
    assert site.live.directory is before


def test_other_settings_come_by_the_database(site: Site) -> None:
    site.watch.look()
    site.store.put_settings_tenants("s", (TenantSettings(id="next", key_sha256=(hash_key("n"),)),))
    site.watch.look()
    assert site.knows("n")
    assert not site.knows("k")


def test_a_deleted_tenants_keys_are_gone(site: Site) -> None:
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    site.watch.look()
    site.store.delete_tenant("me", "acme")
    site.watch.look()
    assert not site.knows(made.secret)
    assert "acme" not in site.live.directory.tenants


def test_without_the_database_it_goes_on_and_tells_its_age(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    site.watch.look()
    with monkeypatch.context() as patch:
        away(site, patch)
        site.clock.now_s += 7
        assert not site.watch.look()
        assert not site.watch.reachable
        assert site.watch.age_s == 7.0
        assert site.knows(made.secret)
    assert site.watch.look()
    assert (site.watch.reachable, site.watch.age_s) == (True, 0.0)


def test_a_gateway_that_starts_meanwhile_takes_what_was_known_last(
    site: Site, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.store.create_tenant("me", "acme", TenantFields(quotas={"requests_per_minute": 3}))
    made = site.store.create_key("me", "acme", KeyFields(models=("m",), expires_s=9e9))
    revoked = site.store.create_key("me", "acme", KeyFields())
    site.store.revoke_key("me", revoked.stored.key.id)
    site.watch.look()
    file = tmp_path / "directory.json"
    kept = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.secret not in kept
    assert made.secret.split("_", 2)[2] not in kept
    assert revoked.stored.key.digest not in kept
    other = Site(database, file)
    away(other, monkeypatch)
    other.watch.begin()
    other.watch.stop()
    assert other.live.directory.callers == site.live.directory.callers
    assert other.live.directory.tenants == site.live.directory.tenants
    assert not other.watch.reachable


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0}', '{"version": 1}'])
def test_a_file_that_cannot_be_read_is_none(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "directory.json").write_text(content)
    away(site, monkeypatch)
    site.watch.begin()
    site.watch.stop()
    assert site.knows("k"), "the settings that it was started with"


def test_the_file_is_written_now_and_then(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    site.watch.look()
    site.store.create_tenant("me", "acme", TenantFields())
    site.watch.look()
    assert "acme" not in file.read_text(), "a moment after the last time"
    site.clock.now_s += 2.0
    site.watch.look()
    assert "acme" in file.read_text()


def test_an_older_copy_of_the_database_is_read_whole(site: Site, database: Engine) -> None:
    for name in ("a", "b"):
        site.store.create_tenant("me", name, TenantFields())
    site.watch.look()
    with writing(database) as connection:
        connection.execute(text("DELETE FROM tenants WHERE id = 'b'"))
        connection.execute(text("UPDATE directory SET revision = 1"))
    site.watch.look()
    assert set(site.live.directory.tenants) == {"demo", "a"}


def test_uses_are_written_every_few_seconds(site: Site) -> None:
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    site.watch.look()
    assert site.knows(made.secret)
    assert site.knows("k"), "a key of the settings has no row"
    site.watch.look()
    assert site.store.key(made.stored.key.id).last_used_s is None
    site.clock.now_s += NOTE_USES_S
    site.watch.look()
    assert site.store.key(made.stored.key.id).last_used_s is not None


def test_uses_outlive_a_database_that_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    site.watch.look()
    site.knows(made.secret)
    site.clock.now_s += NOTE_USES_S
    with monkeypatch.context() as patch:
        away(site, patch)
        site.watch.look()
    site.watch.look()
    site.clock.now_s += NOTE_USES_S
    site.watch.look()
    assert site.store.key(made.stored.key.id).last_used_s is not None


def test_the_thread_looks_by_itself_and_ends_when_told(site: Site) -> None:
    site.watch.begin()
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    _until(lambda: site.knows(made.secret))
    site.watch.stop()
    assert site.store.key(made.stored.key.id).last_used_s is not None, "written at the end"
    site.store.revoke_key("me", made.stored.key.id)
    time.sleep(0.1)
    assert site.knows(made.secret)


def test_a_server_that_is_stopped_and_comes_back(postgresql: Any, tmp_path: Path) -> None:
    engine = open_database(postgresql.new_database())
    migrate(engine)
    site = Site(engine)
    site.store.create_tenant("me", "acme", TenantFields())
    made = site.store.create_key("me", "acme", KeyFields())
    assert site.watch.look()
    postgresql.stop()
    assert not site.watch.look()
    assert site.knows(made.secret)
    postgresql.start()
    assert site.watch.look()
    engine.dispose()


def test_a_database_without_tables_is_as_one_that_is_away(database_at: str) -> None:
    engine = open_database(database_at)
    site = Site(engine)
    site.watch.begin()
    site.watch.stop()
    assert not site.watch.reachable
    assert site.knows("k")
    migrate(engine)
    assert site.watch.look()
    engine.dispose()


def test_conflicts_are_told(site: Site, database: Engine) -> None:
    site.store.create_tenant("me", "acme", TenantFields())
    known = Known((TenantSettings(id="acme"),))
    known.take(site.store.changes_since(-1))
    assert known.directory().conflicts == ("The tenant 'acme' of the database is in the settings.",)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
