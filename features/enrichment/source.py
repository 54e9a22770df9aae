"""Where a request names its entity: a header, the body's metadata, a claim of a signed token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from unicodedata import normalize

from features.join_keys import OWN_KEYS, BadEntityError, EntityKeys
from weir.tokens import KeysUnknownError, TokenError, TokenVerifier

Header = Callable[[bytes], str | None]
"""A request's header by its lower-case name."""
Problem = Literal["", "no-entity", "invalid", "claim-unverified", "no-issuer-keys"]


@dataclass(frozen=True, slots=True)
class Found:
    """The entity that a request names: its key in the store, and how the request put it.

    Without a key, ``problem`` is what is wrong and ``reason`` says more.
    """

    key: bytes | None
    entity_id: str = ""
    problem: Problem = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EntitySource:
    """How to find it. ``header`` is the lower-case name of a header, for ``body`` empty; without a
    ``name``, ``body`` means that each join key is a field of the metadata."""

    kind: Literal["header", "body", "claim"]
    header: bytes
    name: str
    keys: EntityKeys = OWN_KEYS
    verifier: TokenVerifier | None = None

    @classmethod
    def parse(
        cls, text: str, keys: EntityKeys = OWN_KEYS, verifier: TokenVerifier | None = None
    ) -> EntitySource:
        """``header: NAME``, ``body: metadata.KEY``, ``body: metadata``, ``claim: NAME in HEADER``.

        Raises:
            ValueError: none of these.
        """
        kind, _, rest = (part.strip() for part in text.partition(":"))
        if kind == "header" and rest:
            return cls("header", rest.lower().encode(), rest, keys)
        if kind == "body" and (rest == "metadata" or rest.startswith("metadata.")):
            return cls("body", b"", rest.removeprefix("metadata").removeprefix("."), keys)
        name, _, header = rest.partition(" in ")
        if kind == "claim" and name and header.strip():
            return cls("claim", header.strip().lower().encode(), name.strip(), keys, verifier)
        raise ValueError(
            f"{text!r}: expected 'header: NAME', 'body: metadata.KEY', 'body: metadata' or "
            "'claim: NAME in HEADER'"
        )

    @property
    def field(self) -> str:
        """What an error message calls it."""
        if self.kind == "body":
            return f"metadata.{self.name}" if self.name else "metadata"
        return self.header.decode()

    def find(
        self, tenant_id: str, header: Header, metadata: Mapping[str, Any] | None, now_s: float
    ) -> Found:
        """The entity that the request names, if it names one that can be a key."""
        try:
            said = _composed(self._said(header, metadata or {}, now_s))
            if not said:
                return Found(None, "", "no-entity", "no-entity")
            values = self.keys.parse(said) if isinstance(said, str) else said
            return Found(self.keys.hash_key(tenant_id, values), _shown(said))
        except BadEntityError as error:
            return Found(None, "", "invalid", str(error))
        except KeysUnknownError as error:
            return Found(None, "", "no-issuer-keys", f"claim-unverified: {error}")
        except TokenError as error:
            return Found(None, "", "claim-unverified", f"claim-unverified: {error}")

    def _said(
        self, header: Header, metadata: Mapping[str, Any], now_s: float
    ) -> str | dict[str, str] | None:
        """One text, or a text for each join key."""
        if self.kind == "header":
            return header(self.header)
        if self.kind == "claim":
            token = header(self.header)
            if not token or self.verifier is None:
                return None
            return _claimed(self.verifier.claims(token, now_s).get(self.name))
        if self.name:
            return _claimed(metadata.get(self.name))
        given = ((name, _claimed(metadata.get(name))) for name in self.keys.asked)
        return {name: text for name, text in given if isinstance(text, str)}


def _composed(said: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """One name in one form, whichever way the client's system writes an umlaut."""
    if isinstance(said, dict):
        return {name: normalize("NFC", text) for name, text in said.items()}
    return normalize("NFC", said) if said else None


def _claimed(value: Any) -> str | dict[str, str] | None:
    """Text and whole numbers as text; an object of them as it is; nothing else names an entity."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): str(each) for name, each in value.items()}
    return None


def _shown(said: str | dict[str, str]) -> str:
    return said if isinstance(said, str) else ";".join(f"{n}={v}" for n, v in said.items())
