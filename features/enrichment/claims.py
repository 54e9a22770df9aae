"""Claims of a signed token: a JSON Web Token (RFC 7519) with an HS256 signature (RFC 7515).

Only HS256 with a secret that the operator shares with the token's issuer. A token that cannot be
verified has no claims: there is no way to read one without its signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

_MAX_TOKEN_CHARS = 8192


class ClaimError(ValueError):
    """The token cannot be believed; the message says why, without quoting it."""


def verified_claims(token: str, secret: bytes, now_s: float) -> Mapping[str, Any]:
    """The claims of ``token`` (with or without ``Bearer``).

    Raises:
        ClaimError: it is no token, another algorithm signed it, the signature is wrong, it has
            expired (``exp``) or is not valid yet (``nbf``).
    """
    token = token.strip()
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    parts = token.split(".")
    if len(token) > _MAX_TOKEN_CHARS or len(parts) != 3:
        raise ClaimError("no token")
    header, claims = _json(parts[0]), _json(parts[1])
    if header.get("alg") != "HS256":
        raise ClaimError("not signed with HS256")
    signed = f"{parts[0]}.{parts[1]}".encode()
    expected = hmac.new(secret, signed, hashlib.sha256).digest()
    if not hmac.compare_digest(expected, _bytes(parts[2])):
        raise ClaimError("the signature does not match")
    if now_s >= _time(claims, "exp", float("inf")):
        raise ClaimError("expired")
    if now_s < _time(claims, "nbf", float("-inf")):
        raise ClaimError("not valid yet")
    return claims


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ClaimError("no token") from None


def _json(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        raise ClaimError("no token") from None
    if not isinstance(found, dict):
        raise ClaimError("no token")
    return found


def _time(claims: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = claims.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClaimError(f"{name} is no time")
    return float(value)
