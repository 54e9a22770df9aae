"""The join keys of a feature service: from what a request says to the key in the online store.

Feast's key of an entity is made of the names, the types and the values of its join keys and of the
project's name. The same number written as text and as ``int64`` gives two different keys, so a
request's text is read as the type that the entity was registered with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from features.keys import MAX_ENTITY_ID_CHARS, entity_key
from features.online.format import JOIN_KEY, PROJECT, KeyValue, serialized_key

NumberType = Literal["int32", "int64", "unix_timestamp"]
KeyType = Literal["string"] | NumberType
KeyContent = Literal["entity", "tenant", "tenant/entity"]

_BITS: Final[dict[NumberType, int]] = {"int32": 32, "int64": 64, "unix_timestamp": 64}
_MAX_DIGITS: Final = 20
_MAX_TEXT_CHARS: Final = 4096
_ASKED: Final = ("entity", "tenant/entity")


class BadEntityError(ValueError):
    """What a request says is no entity of the service; the message names the join key."""


@dataclass(frozen=True, slots=True)
class JoinKey:
    """One join key.

    ``content``: what its value is made of. ``entity`` is what the request says, ``tenant`` the
    tenant's id, ``tenant/entity`` both, escaped (:func:`features.keys.entity_key`).
    """

    name: str
    type: KeyType = "string"
    content: KeyContent = "entity"


class EntityKeys:
    """All join keys of a service, and the name of the Feast project that its rows belong to."""

    def __init__(self, join_keys: tuple[JoinKey, ...], project: str = PROJECT) -> None:
        # Feast sorts the keys by name.
        self._keys = tuple(sorted(join_keys, key=lambda each: each.name))
        self._project = project
        self.asked: tuple[str, ...] = tuple(k.name for k in self._keys if k.content in _ASKED)
        """The names that a request has to give values for."""
        self.are_own = join_keys == OWN_JOIN_KEYS and project == PROJECT
        """Whether these are the keys of weir's own repository, which feature generation serves."""

    def parse(self, text: str) -> dict[str, str]:
        """The values in ``text``, by name.

        With one name to give, the whole text is its value. With several, the text is
        ``customer=42;region=eu``; in a value ``%3B`` stands for a semicolon and ``%25`` for a
        percent sign.

        Raises:
            BadEntityError: the text has not exactly the names that are asked for.
        """
        if len(text) > _MAX_TEXT_CHARS:
            raise BadEntityError(f"an entity has at most {_MAX_TEXT_CHARS} characters")
        if len(self.asked) == 1:
            return {self.asked[0]: text}
        values: dict[str, str] = {}
        for part in text.split(";"):
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals:
                raise BadEntityError(f"expected {self.example}")
            if name in values:
                raise BadEntityError(f"{name[:64]!r} is given twice")
            try:
                values[name] = unquote(value.strip(), errors="strict")
            except UnicodeDecodeError:
                raise BadEntityError(f"{name[:64]!r} is not UTF-8") from None
        self._require_names(values)
        return values

    @property
    def example(self) -> str:
        """What a text has to look like."""
        return ";".join(f"{name}=VALUE" for name in self.asked)

    def hash_key(self, tenant_id: str, values: Mapping[str, str]) -> bytes:
        """The key in Redis of a tenant's entity.

        Raises:
            BadEntityError: a value is missing or is not of its key's type.
        """
        self._require_names(values)
        pairs = [
            (each.name, _value(each, tenant_id, values.get(each.name, ""))) for each in self._keys
        ]
        return serialized_key(pairs) + self._project.encode()

    def _require_names(self, values: Mapping[str, str]) -> None:
        if missing := next((name for name in self.asked if name not in values), None):
            raise BadEntityError(f"{missing} is missing")
        if unknown := next((name for name in values if name not in self.asked), None):
            raise BadEntityError(f"there is no join key {unknown[:64]!r}")


def _value(key: JoinKey, tenant_id: str, text: str) -> KeyValue:
    if key.content == "tenant":
        return "string", tenant_id
    if key.content == "tenant/entity":
        try:
            return "string", entity_key(tenant_id, text)
        except ValueError as error:
            raise BadEntityError(f"{key.name}: {error}") from None
    if key.type == "string":
        return "string", _text(key, text)
    return key.type, _number(key, key.type, text)


def _text(key: JoinKey, text: str) -> str:
    if not text:
        raise BadEntityError(f"{key.name} is empty")
    if len(text) > MAX_ENTITY_ID_CHARS:
        raise BadEntityError(f"{key.name} has more than {MAX_ENTITY_ID_CHARS} characters")
    if not _is_utf8(text):
        raise BadEntityError(f"{key.name} cannot be written as UTF-8")
    return text


def _number(key: JoinKey, kind: NumberType, text: str) -> int:
    digits = text.strip().removeprefix("-")
    # int() takes underscores, plus signs and digits of other scripts; an identifier has none.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise BadEntityError(f"{key.name}: {text[:32]!r} is no {kind}")
    number, half = int(text), 1 << (_BITS[kind] - 1)
    if not -half <= number < half:
        raise BadEntityError(f"{key.name}: {text[:32]!r} does not fit {kind}")
    return number


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


OWN_JOIN_KEYS: Final = (JoinKey(JOIN_KEY, "string", "tenant/entity"),)
"""The join key of weir's own repository."""
OWN_KEYS: Final = EntityKeys(OWN_JOIN_KEYS)
