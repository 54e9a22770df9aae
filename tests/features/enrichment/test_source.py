"""Where the entity comes from, and that a claim is believed only with its signature."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from features.enrichment.source import EntitySource
from features.join_keys import OWN_KEYS, EntityKeys, JoinKey
from features.keys import entity_key
from features.online.format import hash_key
from weir.key_sets import KeySet, KeySetSettings
from weir.tokens import SharedSecret, TokenVerifier

SECRET = b"a secret of more than thirty-two bytes"
NOW_S = 1_000.0
TWO = EntityKeys((JoinKey("region"), JoinKey("customer_id", "int64")), "shop")
SEVEN = hash_key(entity_key("acme", "7"))
BOTH = TWO.hash_key("acme", {"region": "eu", "customer_id": "42"})


def token(claims: Any, secret: bytes = SECRET) -> str:
    return jwt.encode(claims, secret, "HS256", sort_headers=True)


def find(
    source: str,
    headers: dict[str, str] | None = None,
    keys: EntityKeys = OWN_KEYS,
    **metadata: Any,
) -> tuple[Any, str, str]:
    held = {name.encode(): value for name, value in (headers or {}).items()}
    parsed = EntitySource.parse(source, keys, TokenVerifier(SharedSecret(SECRET)))
    found = parsed.find("acme", held.get, metadata or None, NOW_S)
    return found.key, found.problem, found.reason


NOBODY = (None, "no-entity", "no-entity")


def test_a_header_names_the_entity() -> None:
    assert find("header: X-Weir-Entity", {"x-weir-entity": "7"}) == (SEVEN, "", "")
    assert find("header: x-weir-entity") == NOBODY
    assert find("header: x-weir-entity", {"x-weir-entity": ""}) == NOBODY
    key, problem, reason = find("header: x-weir-entity", {"x-weir-entity": "7" * 300})
    assert (key, problem) == (None, "invalid")
    assert reason == "entity: an entity id has at most 256 characters"


def test_the_body_names_the_entity() -> None:
    assert find("body: metadata.customer_id", customer_id="7") == (SEVEN, "", "")
    assert find("body: metadata.customer_id", customer_id=7) == (SEVEN, "", "")
    assert find("body: metadata.customer_id", other="7") == NOBODY


def test_several_keys_in_a_header_in_one_field_or_in_a_field_each() -> None:
    text = "customer_id=42;region=eu"
    assert find("header: x-who", {"x-who": text}, TWO) == (BOTH, "", "")
    assert find("body: metadata.who", None, TWO, who=text) == (BOTH, "", "")
    assert find("body: metadata", None, TWO, customer_id="42", region="eu") == (BOTH, "", "")
    assert find("body: metadata", None, TWO, other="x") == NOBODY
    assert find("body: metadata", None, TWO, region="eu") == (
        None,
        "invalid",
        "customer_id is missing",
    )
    assert find("header: x-who", {"x-who": "customer_id=4.2;region=eu"}, TWO) == (
        None,
        "invalid",
        "customer_id: '4.2' is no int64",
    )


def test_a_claim_names_the_entity() -> None:
    claim = "claim: sub in X-Customer-Token"
    assert find(claim, {"x-customer-token": token({"sub": "7"})}) == (SEVEN, "", "")
    assert find(claim, {"x-customer-token": by_number()}) == (SEVEN, "", "")
    assert find(claim, {"x-customer-token": token({"other": "7"})}) == NOBODY
    assert find(claim) == NOBODY
    forged = token({"sub": "7"}, b"a guess of more than thirty-two bytes")
    assert find(claim, {"x-customer-token": forged}) == (
        None,
        "claim-unverified",
        "claim-unverified: the signature does not match",
    )


def by_number() -> str:
    """The library refuses to make a token whose subject is a number; others do make them."""
    return jwt.PyJWS().encode(b'{"sub": 7}', SECRET, "HS256")


@pytest.mark.parametrize("who", ["customer_id=42;region=eu", {"customer_id": 42, "region": "eu"}])
def test_a_claim_has_several_keys_as_text_or_as_an_object(who: Any) -> None:
    held = {"x-token": token({"who": who})}
    assert find("claim: who in x-token", held, TWO) == (BOTH, "", "")


@pytest.mark.parametrize("value", [True, None, 1.5, ["7"]])
def test_what_is_neither_text_nor_a_number_names_nobody(value: Any) -> None:
    assert find("claim: who in x-token", {"x-token": token({"who": value})}) == NOBODY


def test_without_the_issuers_keys_nothing_is_believed() -> None:
    unknown = KeySet(lambda: b"", "test", KeySetSettings())
    source = EntitySource.parse("claim: sub in x", OWN_KEYS, TokenVerifier(unknown))
    forged = jwt.PyJWS().encode(b"{}", SECRET, "HS256", {"alg": "HS256"})
    assert source.find("acme", lambda name: forged, None, NOW_S).problem == "claim-unverified"


@pytest.mark.parametrize("text", ["", "header:", "body: user", "claim: sub", "cookie: x"])
def test_other_sources_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        EntitySource.parse(text)
