"""Verified claims of JSON Web Tokens (RFC 7519), by PyJWT.

A token that cannot be verified has no claims: there is no way to read one without its signature.
The algorithms that are allowed follow from the kind of key, never from the token: a shared secret
verifies HS256 only, an issuer's public keys never verify a symmetric signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt

if TYPE_CHECKING:
    from jwt.types import Options

MIN_SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2: a key of HS256 has at least the size of the hash."""
_MAX_TOKEN_CHARS: Final = 8192
# Times are checked here, by the caller's clock; a subject may be a number.
_LIBRARY: Final[Options] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}


KeysById = dict[tuple[str | None, str], jwt.PyJWK]
"""By key id (None: it has none) and algorithm."""


class TokenError(ValueError):
    """The token cannot be believed; the message says why, without quoting it."""


class KeysUnknownError(TokenError):
    """The issuer's keys could not be fetched so far: no token of it can be verified."""


class VerificationKeys(Protocol):
    """The keys of one issuer."""

    def find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | bytes:
        """The key for a token's signature. Never waits.

        Raises:
            TokenError: there is none, or the algorithm is not allowed.
        """
        ...


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A secret that the operator shares with the issuer."""

    secret: bytes

    def find(self, algorithm: str, key_id: str | None) -> bytes:
        """The secret, for HS256."""
        if algorithm != "HS256":
            raise TokenError("not signed with HS256")
        return self.secret


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say. ``issuer`` None and ``audience`` empty: anything.

    ``leeway_s``: by how much the issuer's clock may differ from ours.
    """

    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Verifies the tokens of one issuer."""

    keys: VerificationKeys
    rules: TokenRules = TokenRules()

    def claims(self, token: str, now_s: float) -> Mapping[str, Any]:
        """The claims of ``token`` (with or without ``Bearer``) at ``now_s`` since the epoch.

        Raises:
            KeysUnknownError: no token of the issuer can be verified at the moment.
            TokenError: it is no token; its algorithm, key, signature, issuer or audience is not
                the right one; it has expired (``exp``) or is not valid yet (``nbf``).
        """
        token = token.strip()
        if token[:7].lower() == "bearer ":
            token = token[7:].strip()
        if len(token) > _MAX_TOKEN_CHARS or token.count(".") != 2:
            raise TokenError("no token")
        claims = self._signed_claims(token)
        leeway_s = self.rules.leeway_s
        if now_s >= _time(claims, "exp", float("inf")) + leeway_s:
            raise TokenError("expired")
        if now_s < _time(claims, "nbf", float("-inf")) - leeway_s:
            raise TokenError("not valid yet")
        return claims

    def _signed_claims(self, token: str) -> Mapping[str, Any]:
        rules = self.rules
        try:
            header = jwt.get_unverified_header(token)
            algorithm = str(header.get("alg"))
            key_id = header.get("kid")
            key = self.keys.find(algorithm, key_id if isinstance(key_id, str) else None)
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options={**_LIBRARY, "verify_aud": bool(rules.audience)},
                audience=rules.audience or None,
                issuer=rules.issuer,
            )
        except jwt.InvalidSignatureError:
            raise TokenError("the signature does not match") from None
        except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
            claim = getattr(error, "claim", "aud")
            raise TokenError(f"the claim {claim} is missing or names others") from None
        except jwt.InvalidIssuerError:
            raise TokenError("another issuer") from None
        except jwt.PyJWTError:
            raise TokenError("no token") from None


def _time(claims: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = claims.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"{name} is no time")
    return float(value)


def parse_key_set(data: bytes, algorithms: tuple[str, ...]) -> KeysById:
    """The public keys of a JSON Web Key Set (RFC 7517), by key id and algorithm.

    Keys for encryption, symmetric keys, and keys of kinds that are not known are passed over.

    Raises:
        ValueError: it is no key set, or has no key for these algorithms.
    """
    try:
        listed = json.loads(data)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("no JSON Web Key Set") from None
    found: KeysById = {}
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        kid = each.get("kid")
        for algorithm in algorithms:
            if _fits(each, algorithm) and (key := _key(each, algorithm)) is not None:
                found.setdefault((kid if isinstance(kid, str) else None, algorithm), key)
    if not found:
        raise ValueError(f"no public key for {' or '.join(algorithms)}")
    return found


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kinds: dict[str, tuple[str, str | None]] = {
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
    }
    kind, curve = kinds.get(algorithm, ("RSA", None))
    return (
        key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("alg", algorithm) == algorithm
    )


def _key(data: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        return jwt.PyJWK(data, algorithm)
    except jwt.PyJWTError:
        return None
