"""Answers that are kept for whoever sends the same request again
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/).

They are kept encrypted, because the answer to the request for a new key has the key in clear: who
reads the database cannot read them without the platform's token and the idempotency key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Request
from sqlalchemy import (
    Column,
    Connection,
    Double,
    LargeBinary,
    String,
    Table,
    delete,
    insert,
    select,
    text,
)

from weir.database import metadata
from weir.errors import BadRequestError, ConflictError, IdempotencyError

HEADER = "idempotency-key"
_KEPT_S = 24 * 3600.0
_MOST_KEY_CHARS = 255
_NONCE_BYTES = 12
Answer = Mapping[str, Any]
"""``status``, ``headers`` and ``body`` of a response; the body is text or None."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created_s", Double, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with an idempotency key. ``digest``: whose key and which; ``request``: a digest of
    what is asked. Everything here runs in the transaction that makes the change."""

    digest: str
    request: str
    cipher: AESGCM

    def lock(self, connection: Connection) -> None:
        """The same request at the same time waits until this one has ended. (SQLite has one
        writer.)"""
        if connection.dialect.name == "postgresql":
            number = int(self.digest[:15], 16)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})

    def kept(self, connection: Connection, now_s: float) -> Answer | None:
        """The answer of the first time, for a day.

        Raises:
            IdempotencyError: the key was used for another request.
            ConflictError: the answer cannot be read any more.
        """
        found = connection.execute(
            select(idempotency_keys).where(idempotency_keys.c.digest == self.digest)
        ).one_or_none()
        if found is None or found.created_s < now_s - _KEPT_S:
            return None
        if found.request != self.request:
            raise IdempotencyError(
                "This Idempotency-Key was used for another request.", param="Idempotency-Key"
            )
        nonce, sealed = bytes(found.answer[:_NONCE_BYTES]), bytes(found.answer[_NONCE_BYTES:])
        try:
            opened = self.cipher.decrypt(nonce, sealed, self.digest.encode())
        except InvalidTag:  # the platform has another token since
            raise ConflictError(
                "The request was done before, and its answer cannot be read any more.",
                param="Idempotency-Key",
            ) from None
        answer: Answer = json.loads(opened)
        return answer

    def keep(self, connection: Connection, answer: Answer, now_s: float) -> None:
        """For the next time; what is older than a day goes."""
        old = idempotency_keys.c.created_s < now_s - _KEPT_S
        connection.execute(delete(idempotency_keys).where(old))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self.cipher.encrypt(nonce, json.dumps(answer).encode(), self.digest.encode())
        connection.execute(
            insert(idempotency_keys).values(
                digest=self.digest, request=self.request, answer=nonce + sealed, created_s=now_s
            )
        )


async def repeatable(request: Request, actor: str, secret: bytes) -> Repeatable | None:
    """The request, if it has an idempotency key. Keys of different actors never meet.

    Raises:
        BadRequestError: the key cannot be one.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not key.strip() or len(key) > _MOST_KEY_CHARS:
        raise BadRequestError(
            f"Idempotency-Key: expected 1 to {_MOST_KEY_CHARS} characters.", param="Idempotency-Key"
        )
    asked = hashlib.sha256()
    for part in (request.method, request.url.path, request.url.query):
        asked.update(part.encode() + b"\0")
    asked.update(await request.body())
    name = f"{actor}\0{key}".encode()
    made = HKDF(SHA256(), 32, None, b"weir idempotency\0" + name).derive(secret)
    return Repeatable(hashlib.sha256(name).hexdigest(), asked.hexdigest(), AESGCM(made))
