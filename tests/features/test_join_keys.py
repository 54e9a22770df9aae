"""Entities as requests name them: several keys, numbers, and what is refused by name."""

from __future__ import annotations

import pytest

from features.join_keys import OWN_KEYS, BadEntityError, EntityKeys, JoinKey
from features.keys import entity_key
from features.online.format import hash_key

TWO = EntityKeys((JoinKey("region"), JoinKey("customer_id", "int64")), "shop")
TENANTS = EntityKeys((JoinKey("tenant", "string", "tenant"), JoinKey("id", "int32")), "shop")


def test_weirs_own_key_is_one_string_of_tenant_and_entity() -> None:
    values = OWN_KEYS.parse("a=1;b")
    assert OWN_KEYS.hash_key("acme", values) == hash_key(entity_key("acme", "a=1;b"))
    assert OWN_KEYS.are_own
    assert not TWO.are_own


def test_several_keys_are_named_in_any_order() -> None:
    keys = {
        TWO.hash_key("t", TWO.parse(text))
        for text in ("region=eu;customer_id=42", " customer_id = 42 ; region = eu ")
    }
    assert len(keys) == 1


def test_a_key_of_the_tenant_is_not_asked_for() -> None:
    assert TENANTS.asked == ("id",)
    assert TENANTS.hash_key("one", {"id": "7"}) != TENANTS.hash_key("two", {"id": "7"})
    with pytest.raises(BadEntityError, match="no join key 'tenant'"):
        TENANTS.hash_key("one", {"id": "7", "tenant": "two"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("42", "expected customer_id=VALUE;region=VALUE"),
        ("customer_id=42", "region is missing"),
        ("customer_id=42;region=eu;x=1", "no join key 'x'"),
        ("customer_id=42;region=eu;region=us", "'region' is given twice"),
        ("customer_id=42;region=%ff", "'region' is not UTF-8"),
        ("customer_id=42;region=", "region is empty"),
        ("customer_id=abc;region=eu", "customer_id: 'abc' is no int64"),
        ("customer_id=4_2;region=eu", "customer_id: '4_2' is no int64"),
        ("customer_id=+42;region=eu", r"customer_id: '\+42' is no int64"),
        ("customer_id=٤٢;region=eu", "is no int64"),
        ("customer_id=1e3;region=eu", "customer_id: '1e3' is no int64"),
        ("customer_id=9223372036854775808;region=eu", "does not fit int64"),
        ("customer_id=" + "9" * 4000 + ";region=eu", "is no int64"),
        ("x" * 5000, "at most 4096 characters"),
        ("customer_id=42;region=" + "x" * 300, "region has more than 256 characters"),
    ],
)
def test_what_is_no_entity_is_told_by_name(text: str, why: str) -> None:
    with pytest.raises(BadEntityError, match=why):
        TWO.hash_key("t", TWO.parse(text))


def test_a_name_of_the_clients_cannot_end_a_header_line() -> None:
    with pytest.raises(BadEntityError) as caught:
        TWO.parse("a\r\nb=1;a\r\nb=1")
    assert "\n" not in str(caught.value)
