"""Signed tokens: what is believed, and what no token can talk weir into."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from weir.key_sets import KeySet, KeySetSettings, from_file
from weir.tokens import (
    KeysUnknownError,
    SharedSecret,
    TokenError,
    TokenRules,
    TokenVerifier,
    parse_key_set,
)

SECRET = b"a secret of more than thirty-two bytes"
NOW_S = 1_000_000.0
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
SHARED = TokenVerifier(SharedSecret(SECRET))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(claims: Any, *, alg: Any = "HS256", secret: bytes = SECRET, **header: Any) -> str:
    """A token as an attacker makes it: no library's checks."""
    head = b64(json.dumps({"alg": alg, "typ": "JWT", **header}).encode())
    signed = f"{head}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def jwks(**keys: Any) -> bytes:
    """A set of public keys by their ids."""
    listed = []
    for kid, key in keys.items():
        kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        listed.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
    return json.dumps({"keys": listed}).encode()


def public(data: bytes, algorithms: tuple[str, ...] = ("RS256", "ES256")) -> TokenVerifier:
    keys = KeySet(lambda: data, "test", KeySetSettings(algorithms))
    keys.load()
    return TokenVerifier(keys)


def signed(claims: Any, key: Any = RSA, alg: str = "RS256", kid: str | None = "a") -> str:
    return jwt.encode(claims, key, alg, headers={} if kid is None else {"kid": kid})


@pytest.mark.parametrize("prefix", ["", "Bearer ", " bearer  "])
def test_a_good_token_has_its_claims(prefix: str) -> None:
    claims = {"sub": "42", "exp": NOW_S + 1, "nbf": NOW_S}
    assert SHARED.claims(prefix + by_hand(claims), NOW_S) == claims
    verifier = public(jwks(a=RSA, b=EC))
    assert verifier.claims(prefix + signed(claims), NOW_S) == claims
    assert verifier.claims(prefix + signed(claims, EC, "ES256", "b"), NOW_S) == claims
    assert verifier.claims(signed({"sub": 7}, kid=None), NOW_S) == {"sub": 7}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no token"),
        ("a.b", "no token"),
        ("a.b.c", "no token"),
        ("!!.!!.!!", "no token"),
        ("x" * 9000, "no token"),
        (by_hand([1]), "no token"),
        (by_hand({"sub": "42"}, secret=b"another"), "the signature does not match"),
        (by_hand({"sub": "42"}, alg="none"), "not signed with HS256"),
        (by_hand({"sub": "42"}, alg=None), "not signed with HS256"),
        (by_hand({"sub": "42"}, alg="HS512"), "not signed with HS256"),
        (by_hand({"sub": "42"}, crit=["exp"], exp=1), "no token"),
        (by_hand({"sub": "42"}, kid=["x"]), "no token"),
        (by_hand({"sub": "42"}).rpartition(".")[0] + ".", "the signature does not match"),
        (by_hand({"sub": "42", "exp": NOW_S}), "expired"),
        (by_hand({"sub": "42", "exp": "tomorrow"}), "exp is no time"),
        (by_hand({"sub": "42", "exp": True}), "exp is no time"),
        (by_hand({"sub": "42", "nbf": NOW_S + 1}), "not valid yet"),
    ],
)
def test_a_bad_token_has_none(text: str, why: str) -> None:
    with pytest.raises(TokenError, match=why):
        SHARED.claims(text, NOW_S)


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic confusion: HS256 with the published key's bytes as the secret."""
    spelled = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    verifier = public(jwks(a=RSA))
    for secret in (spelled, spelled.strip(), jwks(a=RSA)):
        with pytest.raises(TokenError, match="not signed with RS256 or ES256"):
            verifier.claims(by_hand({"sub": "1"}, secret=secret, kid="a"), NOW_S)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "RS512", "PS256", ""])
def test_the_token_does_not_choose_the_algorithm(alg: str) -> None:
    with pytest.raises(TokenError, match="not signed with RS256 or ES256"):
        public(jwks(a=RSA)).claims(by_hand({"sub": "1"}, alg=alg, kid="a"), NOW_S)


def test_a_key_of_another_kind_does_not_fit() -> None:
    verifier = public(jwks(a=RSA, b=EC))
    with pytest.raises(TokenError, match="has not published"):
        verifier.claims(signed({"sub": "1"}, EC, "ES256", "a"), NOW_S)
    with pytest.raises(TokenError, match="the signature does not match"):
        verifier.claims(signed({"sub": "1"}, OTHER_RSA), NOW_S)


def test_a_symmetric_key_in_the_set_is_passed_over() -> None:
    oct_key = {"kty": "oct", "k": b64(SECRET), "kid": "a", "alg": "HS256"}
    with pytest.raises(ValueError, match="no public key for RS256"):
        parse_key_set(json.dumps({"keys": [oct_key]}).encode(), ("RS256",))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": [7, {"kty": "RSA"}]}', b"[" * 100_000]
)
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_key_set(data, ("RS256", "ES256"))


def test_without_a_key_id_only_a_single_key_will_do() -> None:
    with pytest.raises(TokenError, match="names no key"):
        public(jwks(a=RSA, c=OTHER_RSA)).claims(signed({"sub": "1"}, kid=None), NOW_S)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://id", "aud": "shop"}, None),
        ({"iss": "https://id", "aud": ["x", "desk"]}, None),
        ({"iss": "https://id", "aud": "shop", "exp": NOW_S - 4}, None),
        ({"iss": "https://id", "aud": "shop", "nbf": NOW_S + 4}, None),
        ({"iss": "https://id", "aud": "shop", "exp": NOW_S - 5}, "expired"),
        ({"iss": "https://id", "aud": "shop", "nbf": NOW_S + 6}, "not valid yet"),
        ({"iss": "https://other", "aud": "shop"}, "another issuer"),
        ({"aud": "shop"}, "the claim iss is missing"),
        ({"iss": "https://id", "aud": "bank"}, "the claim aud is missing or names others"),
        ({"iss": "https://id"}, "the claim aud is missing or names others"),
    ],
)
def test_issuer_audience_and_leeway(claims: dict[str, Any], why: str | None) -> None:
    rules = TokenRules("https://id", ("shop", "desk"), 5.0)
    verifier = TokenVerifier(public(jwks(a=RSA)).keys, rules)
    if why is None:
        assert verifier.claims(signed(claims), NOW_S) == claims
        return
    with pytest.raises(TokenError, match=why):
        verifier.claims(signed(claims), NOW_S)


async def test_unknown_keys_cause_no_storm() -> None:
    """A tenant that invents key ids has the set fetched once, however often it asks."""
    keys = KeySet(lambda: jwks(a=RSA), "test", KeySetSettings(refresh_s=3600, min_pause_s=3600))
    verifier = TokenVerifier(keys)
    with pytest.raises(KeysUnknownError):
        verifier.claims(signed({"sub": "1"}), NOW_S)
    keys.start()
    await keys.wait_until_loaded()
    for number in range(200):
        with pytest.raises(TokenError, match="has not published"):
            verifier.claims(signed({"sub": "1"}, kid=f"k{number}"), NOW_S)
    assert verifier.claims(signed({"sub": "1"}), NOW_S) == {"sub": "1"}
    assert keys.fetches == 1
    await keys.close()


async def test_a_new_key_is_known_after_a_token_asked_for_it(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(a=RSA))
    keys = from_file(file, KeySetSettings(refresh_s=3600, min_pause_s=0.01))
    verifier = TokenVerifier(keys)
    keys.start()
    await keys.wait_until_loaded()
    file.write_bytes(jwks(a=RSA, c=OTHER_RSA))
    token = signed({"sub": "1"}, OTHER_RSA, kid="c")
    with pytest.raises(TokenError, match="has not published"):
        verifier.claims(token, NOW_S)
    await _until_known(verifier, token)
    await keys.close()


async def test_keys_that_are_known_outlive_a_set_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(a=RSA))
    keys = from_file(file, KeySetSettings(refresh_s=0.01, min_pause_s=0.01))
    verifier = TokenVerifier(keys)
    keys.start()
    await keys.wait_until_loaded()
    for broken in (b"{}", b"nonsense"):
        file.write_bytes(broken)
        before = keys.fetches
        await _until(lambda before=before: keys.fetches > before + 1)
        assert verifier.claims(signed({"sub": "1"}), NOW_S) == {"sub": "1"}
    await keys.close()


async def _until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - a fetch in the background has no event
        await asyncio.sleep(0.005)


async def _until_known(verifier: TokenVerifier, token: str) -> None:
    def known() -> bool:
        try:
            return bool(verifier.claims(token, NOW_S))
        except TokenError:
            return False

    await _until(known)
