"""Tenants and keys in the database: the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from weir.database import metadata, reading, writing
from weir.errors import BadRequestError, ConflictError, NotFoundError, VersionMismatchError
from weir.settings import TenantFields, TenantSettings
from weir.tenancy import Role, hash_key
from weir.tenancy.audit import read_audit
from weir.tenancy.database import TenantStore
from weir.tenancy.fields import (
    KeyFields,
    checked_fields,
    fields_of_key,
    fields_of_tenant,
    key_of_fields,
    read_fields,
    tenant_of_fields,
)

EVERYTHING: dict[str, Any] = {
    "models": ["m", "other/m"],
    "classes": ["batch", "standard"],
    "adapters": ["m:tone"],
    "features": ["desk"],
    "prefix_group": "g",
    "weight": 2.5,
    "quotas": {"requests_per_minute": 60, "concurrent_requests": 4},
    "model_quotas": {"m": {"output_tokens_per_day": 1000}},
    "budget": {"usd_per_month": 12.3, "webhook_url": "https://ops.example/hook"},
    "fallback": {"forbid": ["cost"]},
    "retention_days": 30,
    "labels": {"team": "search"},
    "enabled": False,
}


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Engine, clock: Clock) -> TenantStore:
    return TenantStore(database, clock)


def test_a_tenant_is_kept_as_it_was_given(store: TenantStore, clock: Clock) -> None:
    made = store.create_tenant("me", "acme", checked_fields(TenantFields, EVERYTHING))
    assert store.tenant("acme") == made
    tenant = made.tenant
    assert (tenant.models, tenant.weight, tenant.enabled) == (
        frozenset({"m", "other/m"}),
        2.5,
        False,
    )
    assert tenant.quotas.requests_per_minute == 60
    assert tenant.model_quotas["m"].output_tokens_per_day == 1000
    assert tenant.budget is not None
    assert tenant.budget.usd_per_month == Decimal("12.3"), "as written, not as a float has it"
    assert (made.version, made.created_s) == (1, clock.now_s)
    assert tenant_of_fields("acme", fields_of_tenant(tenant)) == tenant
    assert store.create_tenant("me", "plain", TenantFields()).tenant.quotas.unlimited


def test_a_change_is_merged_and_has_a_version(store: TenantStore, clock: Clock) -> None:
    store.create_tenant("me", "acme", checked_fields(TenantFields, EVERYTHING))
    clock.now_s += 5
    changes = {"quotas": {"requests_per_day": 9, "concurrent_requests": None}, "weight": None}
    changed = store.update_tenant("me", "acme", changes, if_version=1)
    assert changed == store.tenant("acme")
    quotas = changed.tenant.quotas
    assert (quotas.requests_per_minute, quotas.requests_per_day) == (60, 9)
    assert quotas.concurrent_requests is None
    assert changed.tenant.weight is None
    assert changed.tenant.models == frozenset({"m", "other/m"})
    assert (changed.version, changed.updated_s - changed.created_s) == (2, 5.0)
    with pytest.raises(VersionMismatchError, match="version 2 now, not 1"):
        store.update_tenant("me", "acme", {"weight": 1}, if_version=1)
    assert store.tenant("acme") == changed


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"weight": -1}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"colour": "red"}, "colour"),
        ({"quotas": {"requests_per_minute": -1}}, "quotas.requests_per_minute"),
        ({"budget": {"usd_per_month": "much"}}, "budget.usd_per_month"),
        ({"budget": {"usd_per_month": 1e-12}}, "budget.usd_per_month"),
        ({"models": ["a b"]}, "models.0"),
    ],
)
def test_what_cannot_be_so_is_named_and_changes_nothing(
    store: TenantStore, changes: dict[str, Any], param: str
) -> None:
    before = store.create_tenant("me", "acme", TenantFields())
    with pytest.raises(BadRequestError) as caught:
        store.update_tenant("me", "acme", changes)
    assert caught.value.param == param
    assert store.tenant("acme") == before
    assert store.revision() == 1, "the refused change took no revision"


def test_a_deleted_tenant_loses_its_keys_and_its_id_stays_taken(store: TenantStore) -> None:
    store.create_tenant("me", "acme", TenantFields())
    key = store.create_key("me", "acme", KeyFields()).stored.key
    store.delete_tenant("me", "acme")
    assert store.key(key.id).key.revoked_s is not None
    for use in (
        lambda: store.tenant("acme"),
        lambda: store.update_tenant("me", "acme", {}),
        lambda: store.delete_tenant("me", "acme"),
        lambda: store.create_key("me", "acme", KeyFields()),
    ):
        with pytest.raises(NotFoundError):
            use()
    with pytest.raises(ConflictError, match="was deleted"):
        store.create_tenant("me", "acme", TenantFields())
    assert store.tenants().items == ()


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 64, "a/b"])
def test_an_id_is_one(store: TenantStore, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        store.create_tenant("me", name, TenantFields())
    assert caught.value.param == "id"


def test_lists_come_in_pages(store: TenantStore) -> None:
    names = [f"t{number}" for number in range(7)]
    for name in reversed(names):
        store.create_tenant("me", name, TenantFields())
        store.create_key("me", name, KeyFields())
    store.delete_tenant("me", "t3")
    names.remove("t3")
    found: list[str] = []
    after: str | None = None
    for expected in (2, 2, 2):
        page = store.tenants(after, limit=2)
        assert len(page.items) == expected
        found += [each.tenant.id for each in page.items]
        after = page.next
    assert after is None
    assert found == names
    ids = [each.key.id for each in store.keys().items]
    assert ids == sorted(ids)
    assert len(ids) == 7
    first = store.keys(limit=4)
    rest = store.keys(after=first.next)
    assert [each.key.id for each in (*first.items, *rest.items)] == ids
    assert [each.key.tenant for each in store.keys("t5").items] == ["t5"]


def test_a_key_is_shown_once_and_kept_as_a_digest(store: TenantStore, database: Engine) -> None:
    store.create_tenant("me", "acme", TenantFields())
    fields = KeyFields(
        name="ci", role=Role.READ_ONLY, models=("m",), endpoints=("chat",), expires_s=2e9
    )
    made = store.create_key("me", "acme", fields)
    key = made.stored.key
    assert made.secret.startswith(f"weir_{key.id}_")
    assert key.digest == hash_key(made.secret)
    assert store.key(key.id) == made.stored
    assert fields_of_key(key) == fields
    assert key_of_fields(key.id, "acme", key.digest, fields, created_s=key.created_s) == key
    rotated = store.rotate_key("me", key.id, 60.0)
    for secret in (made.secret, rotated.secret):
        assert secret.split("_", 2)[2] not in _everything(database)
        assert secret not in _everything(database)


def test_rotation_overlaps(store: TenantStore, clock: Clock) -> None:
    store.create_tenant("me", "acme", TenantFields())
    fields = KeyFields(name="ci", models=("m",), expires_s=clock.now_s + 1000)
    old = store.create_key("me", "acme", fields).stored.key
    clock.now_s += 100
    new = store.rotate_key("me", old.id, overlap_s=60.0).stored
    assert new.replaces == old.id
    assert replace(new.key, id="", digest="", created_s=0, expires_s=0) == replace(
        old, id="", digest="", created_s=0, expires_s=0
    )
    assert new.key.expires_s == clock.now_s + 1000, "as long a life as the old one had"
    old = store.key(old.id).key
    assert old.usable(clock.now_s + 59)
    assert not old.usable(clock.now_s + 60)
    soon = store.rotate_key("me", old.id, overlap_s=3600.0)
    assert store.key(old.id).key.expires_s == clock.now_s + 60, "it never lives longer"
    assert soon.stored.replaces == old.id
    clock.now_s += 61
    with pytest.raises(ConflictError, match="has expired"):
        store.rotate_key("me", old.id, 0.0)


def test_a_revoked_key_stays_revoked(store: TenantStore, clock: Clock) -> None:
    store.create_tenant("me", "acme", TenantFields())
    key = store.create_key("me", "acme", KeyFields()).stored.key
    revoked = store.revoke_key("me", key.id)
    assert not revoked.key.usable(clock.now_s)
    before = store.revision()
    assert store.revoke_key("me", key.id) == revoked
    for use in (
        lambda: store.rotate_key("me", key.id, 60.0),
        lambda: store.update_key("me", key.id, {"name": "x"}),
    ):
        with pytest.raises(ConflictError, match="is revoked"):
            use()
    assert store.revision() - before <= 1


def test_a_key_is_changed_within_its_tenant_only(store: TenantStore) -> None:
    for name in ("acme", "other"):
        store.create_tenant("me", name, TenantFields())
    key = store.create_key("me", "acme", KeyFields(name="a")).stored.key
    changed = store.update_key("me", key.id, {"name": "b"}, if_version=1, tenant_id="acme")
    assert (changed.key.name, changed.version) == ("b", 2)
    for use in (
        lambda: store.update_key("me", key.id, {"name": "c"}, tenant_id="other"),
        lambda: store.rotate_key("me", key.id, 1.0, tenant_id="other"),
        lambda: store.revoke_key("me", key.id, tenant_id="other"),
        lambda: store.key(key.id, tenant_id="other"),
        lambda: store.key("nothing"),
    ):
        with pytest.raises(NotFoundError):
            use()
    with pytest.raises(BadRequestError, match="role"):
        store.update_key("me", key.id, {"role": "king"})
    assert store.key(key.id) == changed


def test_last_uses_only_grow_and_are_no_change(store: TenantStore) -> None:
    store.create_tenant("me", "acme", TenantFields())
    key = store.create_key("me", "acme", KeyFields()).stored.key
    before = store.revision(), len(read_audit(store.engine).items)
    store.note_uses({key.id: 50.0, "unknown": 1.0})
    store.note_uses({key.id: 40.0})
    assert store.key(key.id).last_used_s == 50.0
    assert (store.revision(), len(read_audit(store.engine).items)) == before


def test_every_change_is_in_the_audit_log_without_secrets(store: TenantStore) -> None:
    store.create_tenant("ann", "acme", TenantFields(weight=2.0))
    store.update_tenant("ann", "acme", {"weight": 3})
    made = store.create_key("ben", "acme", KeyFields(name="ci"))
    rotated = store.rotate_key("ben", made.stored.key.id, 10.0)
    store.revoke_key("ben", rotated.stored.key.id)
    listed = (TenantSettings(id="demo", key_sha256=(hash_key("k"),)),)
    store.put_settings_tenants("settings", listed)
    store.delete_tenant("ann", "acme")
    entries = read_audit(store.engine).items[::-1]
    old, new = made.stored.key.id, rotated.stored.key.id
    assert [(each.actor, each.action, each.object) for each in entries] == [
        ("ann", "tenant.create", "tenant:acme"),
        ("ann", "tenant.update", "tenant:acme"),
        ("ben", "key.create", f"key:{old}"),
        ("ben", "key.expire", f"key:{old}"),
        ("ben", "key.rotate", f"key:{new}"),
        ("ben", "key.revoke", f"key:{new}"),
        ("settings", "settings.apply", "settings"),
        ("ann", "tenant.delete", "tenant:acme"),
        ("ann", "key.revoke", f"key:{old}"),
    ]
    update = entries[1]
    assert update.before is not None
    assert update.after is not None
    assert (update.before["weight"], update.after["weight"]) == (2.0, 3.0)
    text_of_it = json.dumps([[each.before, each.after] for each in entries])
    for secret in (made.secret, rotated.secret, hash_key(made.secret), hash_key("k")):
        assert secret not in text_of_it
    own = read_audit(store.engine, tenant_id="acme", limit=3)
    assert [each.id for each in own.items] == sorted((e.id for e in own.items), reverse=True)
    assert {each.tenant_id for each in own.items} == {"acme"}
    rest = read_audit(store.engine, tenant_id="acme", after=own.next)
    assert len(own.items) + len(rest.items) == len(entries) - 1
    with pytest.raises(BadRequestError):
        read_audit(store.engine, after="x")


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_the_audit_log_is_append_only(store: TenantStore, database: Engine, statement: str) -> None:
    store.create_tenant("me", "acme", TenantFields())
    with pytest.raises(DBAPIError, match="append-only"), writing(database) as connection:
        connection.execute(text(statement))
    assert read_audit(database).items[0].actor == "me"


def test_changes_at_once_get_a_revision_each(store: TenantStore) -> None:
    def create(worker: int) -> None:
        for number in range(5):
            store.create_tenant("me", f"t{worker}-{number}", TenantFields())

    workers = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.revision() == 20
    revisions = [each.revision for each in read_audit(store.engine).items]
    assert sorted(revisions) == list(range(1, 21))


def test_what_has_changed_since(store: TenantStore) -> None:
    for name in ("a", "b", "c"):
        store.create_tenant("me", name, TenantFields())
    kept = store.create_key("me", "a", KeyFields()).stored.key
    gone = store.create_key("me", "a", KeyFields()).stored.key
    seen = store.changes_since(-1)
    assert [each.tenant.id for each in seen.tenants] == ["a", "b", "c"]
    assert {key.id for key in seen.keys} == {kept.id, gone.id}
    assert seen.revision == store.revision()
    assert store.changes_since(seen.revision).tenants == ()
    store.update_tenant("me", "b", {"weight": 2})
    store.delete_tenant("me", "c")
    store.revoke_key("me", gone.id)
    since = store.changes_since(seen.revision)
    assert {(each.tenant.id, each.deleted_s is None) for each in since.tenants} == {
        ("b", True),
        ("c", False),
    }
    assert [(key.id, key.revoked_s is None) for key in since.keys] == [(gone.id, False)]
    fresh = store.changes_since(-1)
    assert [each.tenant.id for each in fresh.tenants] == ["a", "b"]
    assert [key.id for key in fresh.keys] == [kept.id]


def test_settings_and_database_never_know_the_same_tenant_or_key(store: TenantStore) -> None:
    demo = TenantSettings(id="demo", key_sha256=(hash_key("k"),))
    store.put_settings_tenants("settings", (demo,))
    before = store.revision()
    store.put_settings_tenants("settings", (demo,))
    assert store.revision() == before, "the same again changes nothing"
    assert store.settings_tenants() == (demo,)
    with pytest.raises(ConflictError, match="'demo' is defined in the settings"):
        store.create_tenant("me", "demo", TenantFields())
    with pytest.raises(NotFoundError, match="is changed there"):
        store.update_tenant("me", "demo", {})
    store.create_tenant("me", "acme", TenantFields())
    made = store.create_key("me", "acme", KeyFields())
    with pytest.raises(
        ConflictError, match="'acme' is defined in the settings and in the database"
    ):
        store.put_settings_tenants("settings", (demo, TenantSettings(id="acme")))
    same = TenantSettings(id="thief", key_sha256=(hash_key(made.secret),))
    with pytest.raises(ConflictError, match=f"{made.stored.key.id!r} of the tenant 'acme'"):
        store.put_settings_tenants("settings", (same,))
    assert store.settings_tenants() == (demo,)
    store.put_settings_tenants("settings", ())
    store.create_tenant("me", "demo", TenantFields())


def test_what_a_newer_weir_wrote_is_read(database: Engine, store: TenantStore) -> None:
    store.create_tenant("me", "acme", TenantFields(weight=2.0))
    with writing(database) as connection:
        body = json.dumps({"weight": 2.0, "later": True})
        connection.execute(text("UPDATE tenants SET fields = :body"), {"body": body})
    assert store.tenant("acme").tenant.weight == 2.0
    assert read_fields(KeyFields, {"name": "x", "later": 1}).name == "x"


def _everything(database: Engine) -> str:
    with reading(database) as connection:
        rows = [
            row for table in metadata.sorted_tables for row in connection.execute(table.select())
        ]
    return repr(rows)
