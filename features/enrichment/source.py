"""Where a request names its entity: a header, a field of the body's metadata, a signed claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from unicodedata import normalize

from features.enrichment.claims import ClaimError, verified_claims
from features.keys import entity_key

Header = Callable[[bytes], str | None]
"""A request's header by its lower-case name."""


@dataclass(frozen=True, slots=True)
class Found:
    """The entity that a request names; without one, ``reason`` says why."""

    entity_id: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EntitySource:
    """How to find it. ``header`` is the lower-case name of a header, for ``body`` empty."""

    kind: Literal["header", "body", "claim"]
    header: bytes
    name: str
    secret: bytes = b""

    @classmethod
    def parse(cls, text: str, secret: bytes = b"") -> EntitySource:
        """``header: NAME``, ``body: metadata.KEY`` or ``claim: NAME in HEADER``.

        Raises:
            ValueError: none of these.
        """
        kind, _, rest = (part.strip() for part in text.partition(":"))
        if kind == "header" and rest:
            return cls("header", rest.lower().encode(), rest)
        if kind == "body" and rest.startswith("metadata."):
            return cls("body", b"", rest.removeprefix("metadata."))
        name, _, header = rest.partition(" in ")
        if kind == "claim" and name and header.strip():
            return cls("claim", header.strip().lower().encode(), name.strip(), secret)
        raise ValueError(
            f"{text!r}: expected 'header: NAME', 'body: metadata.KEY' or 'claim: NAME in HEADER'"
        )

    @property
    def field(self) -> str:
        """What an error message calls it."""
        return f"metadata.{self.name}" if self.kind == "body" else self.header.decode()

    def find(
        self, tenant_id: str, header: Header, metadata: Mapping[str, str] | None, now_s: float
    ) -> Found:
        """The entity id, if the request has one that can be a key."""
        in_body = self.kind == "body"
        entity = (metadata or {}).get(self.name) if in_body else header(self.header)
        if self.kind == "claim" and entity:
            found = self._claim(entity, now_s)
            if found.entity_id is None:
                return found
            entity = found.entity_id
        if not entity:
            return Found(None, "no-entity")
        # One name in one form, whichever way the client's system writes an umlaut.
        entity = normalize("NFC", entity)
        try:
            entity_key(tenant_id, entity)
        except ValueError:
            return Found(None, "bad-entity")
        return Found(entity)

    def _claim(self, token: str, now_s: float) -> Found:
        try:
            value = verified_claims(token, self.secret, now_s).get(self.name)
        except ClaimError as error:
            return Found(None, f"claim-unverified: {error}")
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return Found(str(value))
        return Found(None, "no-entity")
