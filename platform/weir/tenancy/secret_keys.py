"""Making API keys, and what is kept of them.

A key is ``weir_<key id>_<secret>``: the id is in clear and names the key in lists, logs and bills;
the secret is 256 random bits, so a plain SHA-256 digest is enough, for there is nothing to guess.
Keys without an id (``weir_<secret>``, and whatever the digest of a settings file came from) are
found by their digest.
"""

from __future__ import annotations

import hashlib
import secrets

KEY_PREFIX = "weir_"
_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12


def new_key_id() -> str:
    """Twelve small letters and digits: 62 bits."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


def new_key(key_id: str | None = None) -> str:
    """A fresh API key of that id, or of a new one."""
    return f"{KEY_PREFIX}{key_id or new_key_id()}_{secrets.token_urlsafe(32)}"


def key_id_of(key: str) -> str | None:
    """The id that a key says it has."""
    parts = key.split("_", 2)
    return parts[1] if len(parts) == 3 else None


def hash_key(key: str) -> str:
    """SHA-256 of the key, in hex: what settings and stores hold."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
