"""Keys are kept as digests, and open only what they should."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.errors import AuthenticationError, PermissionDeniedError, WeirError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import Caller, Directory, Key, LiveDirectory, Role, Tenant, hash_key, new_key

OLD, NEW, OTHER = "weir_old", "weir_new", "weir_other"
LISTED = (
    TenantSettings(id="shop", key_sha256=(hash_key(OLD), hash_key(NEW)), models=("small",)),
    TenantSettings(id="lab", key_sha256=(hash_key(OTHER),)),
    TenantSettings(id="locked-out"),
)
NOW_S = 1_000.0


def live(*keys: Key, tenants: tuple[Tenant, ...] = (Tenant("acme"),)) -> LiveDirectory:
    return LiveDirectory(Directory.of(LISTED, tenants, keys), lambda: NOW_S)


def made(name: str = "k1", **fields: Any) -> tuple[str, Key]:
    secret = new_key(name)
    return secret, Key(name, "acme", hash_key(secret), **fields)


RING = live()


def test_new_keys_differ_and_say_which_they_are() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"weir_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert new_key("abc").startswith("weir_abc_")


def test_each_key_of_a_tenant_works_so_that_keys_can_be_rotated() -> None:
    for key in (OLD, NEW):
        caller = RING.authenticate(f"Bearer {key}")
        assert caller.tenant == Tenant("shop", frozenset({"small"}))
        assert caller.key.id == f"sha256-{hash_key(key)[:12]}"
    assert RING.authenticate(f"bearer   {OTHER} ").tenant.id == "lab"
    assert RING.authenticate(None, OTHER).tenant.id == "lab"


def test_a_key_with_an_id_is_found_by_it() -> None:
    secret, key = made()
    caller = live(key).authenticate(f"Bearer {secret}")
    assert caller == Caller(Tenant("acme"), key)
    assert live(key).directory.caller("k1") == caller
    for wrong in (secret[:-1], f"{secret}x", "weir_k1_", "weir_k1", f"weir_k2_{secret[8:]}"):
        with pytest.raises(AuthenticationError):
            live(key).authenticate(f"Bearer {wrong}")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {OLD}",
        OLD,
        f"Bearer {hash_key(OLD)}",
        f"Bearer weir_{hash_key(OLD)}_x",
        f"Bearer sha256-{hash_key(OLD)[:12]}",
        "Bearer weir_x",
    ],
)
def test_anything_else_is_refused_and_names_the_header(header: str | None) -> None:
    with pytest.raises(AuthenticationError) as caught:
        RING.authenticate(header)
    assert caught.value.param == "Authorization"
    assert OLD not in caught.value.message


@given(st.text())
def test_no_text_opens_the_ring_or_breaks_it(text: str) -> None:
    with pytest.raises(AuthenticationError):
        RING.authenticate(f"Bearer x{text}")


@pytest.mark.parametrize(
    ("fields", "works"),
    [
        ({"expires_s": NOW_S + 1}, True),
        ({"expires_s": NOW_S}, False),
        ({"revoked_s": NOW_S - 1}, False),
        ({"revoked_s": NOW_S - 1, "expires_s": NOW_S + 1}, False),
    ],
)
def test_a_key_that_ended_is_refused(fields: dict[str, float], works: bool) -> None:
    secret, key = made(**fields)
    if works:
        assert live(key).authenticate(f"Bearer {secret}").key is key
        return
    with pytest.raises(AuthenticationError, match="expired or is revoked"):
        live(key).authenticate(f"Bearer {secret}")


def test_a_tenant_that_is_switched_off_is_refused() -> None:
    secret, key = made()
    off = live(key, tenants=(Tenant("acme", enabled=False),))
    with pytest.raises(PermissionDeniedError, match="switched off"):
        off.authenticate(f"Bearer {secret}")


def test_uses_are_noted_and_taken_once() -> None:
    secret, key = made()
    directory = live(key)
    for _ in range(3):
        directory.authenticate(f"Bearer {secret}")
    with pytest.raises(AuthenticationError):
        directory.authenticate("Bearer weir_no")
    assert directory.take_uses() == {"k1": NOW_S}
    assert directory.take_uses() == {}


def test_the_settings_hold_where_both_know_a_tenant_or_a_key() -> None:
    secret, key = made()
    same = Key("k2", "acme", hash_key(OLD))
    stolen = Key("k3", "shop", hash_key("weir_stolen"))
    directory = live(key, same, stolen, tenants=(Tenant("acme"), Tenant("shop"))).directory
    assert directory.tenants["shop"].models == frozenset({"small"})
    assert directory.caller("k1") is not None
    assert directory.caller("k2") is None
    assert directory.caller("k3") is None, "the settings' tenant has no keys of the database"
    holder = directory.holder(OLD)
    assert holder is not None
    assert holder.tenant.id == "shop"
    assert len(directory.conflicts) == 2
    assert directory.holder(secret) == directory.caller("k1")


def test_two_tenants_of_the_settings_share_neither_id_nor_key() -> None:
    small = ModelSettings(name="small", source="x")
    thief = TenantSettings(id="thief", key_sha256=(hash_key(NEW),))
    Settings(models=(small,), tenants=LISTED)
    with pytest.raises(ValueError, match="'lab' is defined twice") as caught:
        Settings(models=(small,), tenants=(*LISTED, TenantSettings(id="lab"), thief))
    assert "is a key of 'shop' too" in str(caught.value)


@pytest.mark.parametrize(
    ("tenant", "key", "seen"),
    [
        ((), (), {"a", "b"}),
        (("a",), (), {"a"}),
        ((), ("b",), {"b"}),
        (("a",), ("b",), set()),
        (("a", "b"), ("b", "c"), {"b"}),
    ],
)
def test_a_key_narrows_its_tenants_models(
    tenant: tuple[str, ...], key: tuple[str, ...], seen: set[str]
) -> None:
    caller = Caller(Tenant("t", frozenset(tenant)), Key("k", "t", "", models=frozenset(key)))
    assert {name for name in ("a", "b") if caller.sees_model(name)} == seen


@pytest.mark.parametrize(
    ("tenant", "key", "kept_for", "seen"),
    [
        ({}, (), (), True),
        ({"models": frozenset({"other"})}, (), (), False),
        ({}, (), ("somebody",), False),
        ({"adapters": frozenset({"m:tone"})}, (), ("somebody",), True),
        ({"models": frozenset({"other"})}, (), ("t",), True),
        ({}, ("m",), (), True),
        ({}, ("m:tone",), (), True),
        ({}, ("nickname",), ("t",), True),
        ({}, ("other",), ("t",), False),
    ],
)
def test_who_may_use_an_adapter(
    tenant: dict[str, Any], key: tuple[str, ...], kept_for: tuple[str, ...], seen: bool
) -> None:
    caller = Caller(Tenant("t", **tenant), Key("k", "t", "", models=frozenset(key)))
    assert caller.sees_adapter("m", ("m:tone", "nickname"), kept_for) == seen


def test_a_key_is_for_its_endpoints_and_its_role() -> None:
    def refusal(use: Callable[[], None]) -> str:
        with pytest.raises(WeirError) as caught:
            use()
        return f"{caught.value.status} {caught.value.message}"

    free, narrow = Key("k", "t", ""), Key("k", "t", "", endpoints=frozenset({"chat"}))
    reads = Key("k", "t", "", role=Role.READ_ONLY)
    tenant = Tenant("t")
    Caller(tenant, free).require_endpoint("embeddings")
    Caller(tenant, narrow).require_endpoint("chat")
    told = refusal(lambda: Caller(tenant, narrow).require_endpoint("embeddings"))
    assert told == "403 The key is not for embeddings."
    Caller(tenant, reads).require_endpoint("responses", asks=False)
    told = refusal(lambda: Caller(tenant, reads).require_endpoint("chat"))
    assert told == "403 The key is for reading only."
