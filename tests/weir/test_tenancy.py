"""Keys are kept as digests, and open only what they should."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.errors import AuthenticationError, ModelNotFoundError
from weir.settings import TenantSettings
from weir.tenancy import KeyRing, Tenant, hash_key, new_key

OLD, NEW, OTHER = "weir_old", "weir_new", "weir_other"
RING = KeyRing(
    [
        TenantSettings(id="shop", key_sha256=(hash_key(OLD), hash_key(NEW)), models=("small",)),
        TenantSettings(id="lab", key_sha256=(hash_key(OTHER),)),
        TenantSettings(id="locked-out"),
    ]
)


def test_new_keys_differ_and_look_like_keys() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"weir_[A-Za-z0-9_-]{32}", key) for key in keys)


def test_each_key_of_a_tenant_works_so_that_keys_can_be_rotated() -> None:
    for key in (OLD, NEW):
        assert RING.authenticate(f"Bearer {key}") == Tenant("shop", frozenset({"small"}))
    assert RING.authenticate(f"bearer   {OTHER} ").id == "lab"


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


def test_a_model_out_of_reach_looks_like_none() -> None:
    shop, lab = RING.authenticate(f"Bearer {OLD}"), RING.authenticate(f"Bearer {OTHER}")
    shop.require_model("small")
    lab.require_model("large")
    with pytest.raises(ModelNotFoundError) as caught:
        shop.require_model("large")
    assert caught.value.param == "model"
