"""Where the entity comes from, and that a claim is believed only with its signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from features.enrichment.claims import ClaimError, verified_claims
from features.enrichment.source import EntitySource

SECRET = b"shared"
NOW_S = 1_000.0


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(
    claims: Any, *, alg: str = "HS256", secret: bytes = SECRET, digest: Any = hashlib.sha256
) -> str:
    signed = (
        f"{b64(json.dumps({'alg': alg, 'typ': 'JWT'}).encode())}.{b64(json.dumps(claims).encode())}"
    )
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), digest).digest())}"


def test_a_good_token_has_its_claims() -> None:
    good = token({"sub": "42", "exp": NOW_S + 1, "nbf": NOW_S})
    assert verified_claims(good, SECRET, NOW_S)["sub"] == "42"
    assert verified_claims(f"Bearer {good}", SECRET, NOW_S)["sub"] == "42"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no token"),
        ("a.b", "no token"),
        ("a.b.c", "no token"),
        ("!!.!!.!!", "no token"),
        ("x" * 9000, "no token"),
        (token([1]), "no token"),
        (token({"sub": "42"}, secret=b"other"), "signature"),
        (token({"sub": "42"}, alg="none"), "not signed with HS256"),
        (token({"sub": "42"}, alg="HS512", digest=hashlib.sha512), "not signed with HS256"),
        (token({"sub": "42"}).rpartition(".")[0] + ".", "signature"),
        (token({"sub": "42", "exp": NOW_S}), "expired"),
        (token({"sub": "42", "exp": "tomorrow"}), "exp is no time"),
        (token({"sub": "42", "exp": True}), "exp is no time"),
        (token({"sub": "42", "nbf": NOW_S + 1}), "not valid yet"),
    ],
)
def test_a_bad_token_has_none(text: str, why: str) -> None:
    with pytest.raises(ClaimError, match=why):
        verified_claims(text, SECRET, NOW_S)


def find(source: str, headers: dict[str, str] | None = None, **metadata: str) -> tuple[Any, str]:
    held = {name.encode(): value for name, value in (headers or {}).items()}
    found = EntitySource.parse(source, SECRET).find("acme", held.get, metadata or None, NOW_S)
    return found.entity_id, found.reason


def test_a_header_names_the_entity() -> None:
    assert find("header: X-Weir-Entity", {"x-weir-entity": "7"}) == ("7", "")
    assert find("header: x-weir-entity") == (None, "no-entity")
    assert find("header: x-weir-entity", {"x-weir-entity": ""}) == (None, "no-entity")
    assert find("header: x-weir-entity", {"x-weir-entity": "7" * 300}) == (None, "bad-entity")


def test_the_body_names_the_entity() -> None:
    assert find("body: metadata.customer_id", customer_id="7") == ("7", "")
    assert find("body: metadata.customer_id", other="7") == (None, "no-entity")


def test_a_claim_names_the_entity() -> None:
    claim = "claim: sub in X-Customer-Token"
    assert find(claim, {"x-customer-token": token({"sub": "7"})}) == ("7", "")
    assert find(claim, {"x-customer-token": token({"sub": 7})}) == ("7", "")
    assert find(claim, {"x-customer-token": token({"sub": True})}) == (None, "no-entity")
    assert find(claim, {"x-customer-token": token({"other": "7"})}) == (None, "no-entity")
    assert find(claim) == (None, "no-entity")
    forged = token({"sub": "7"}, secret=b"guess")
    assert find(claim, {"x-customer-token": forged}) == (
        None,
        "claim-unverified: the signature does not match",
    )


@pytest.mark.parametrize("text", ["", "header:", "body: user", "claim: sub", "cookie: x"])
def test_other_sources_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        EntitySource.parse(text)
