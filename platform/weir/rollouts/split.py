"""Which conversations a candidate gets."""

from __future__ import annotations

from hashlib import blake2b


def place_of(session: str, salt: str) -> float:
    """A session's place in [0, 1): the same at every gateway, and another one for each ``salt``
    (the rollout's id), so that not the same users are tried on every time."""
    digest = blake2b(f"{salt}\0{session}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def is_chosen(session: str, salt: str, share: float) -> bool:
    """Whether a session is among the ``share`` that the candidate answers. Who is chosen at a
    small share is chosen at every larger one: no conversation goes back and forth."""
    return place_of(session, salt) < share
