"""The keys that entities have in the online store: each tenant has a namespace of its own.

Feast knows one join key, ``entity``; its value is ``<tenant>/<entity id>``. Both parts are
escaped, so the mapping is injective: whatever text a tenant sends as an entity id, the key stays
inside the tenant's own namespace, and asking for another tenant's entity finds nothing.
"""

from __future__ import annotations

SEPARATOR = "/"
MAX_ENTITY_ID_CHARS = 256


def entity_key(tenant_id: str, entity_id: str) -> str:
    """``entity_key("acme", "10023") == "acme/10023"``.

    Raises:
        ValueError: a part is empty, the entity id is longer than 256 characters, or it cannot be
            written as UTF-8 (a lone surrogate).
    """
    if not tenant_id or not entity_id:
        raise ValueError("a tenant id and an entity id must not be empty")
    if len(entity_id) > MAX_ENTITY_ID_CHARS:
        raise ValueError(f"an entity id has at most {MAX_ENTITY_ID_CHARS} characters")
    entity_id.encode()  # UnicodeEncodeError is a ValueError
    return f"{_escape(tenant_id)}{SEPARATOR}{_escape(entity_id)}"


def split_entity_key(key: str) -> tuple[str, str]:
    """The inverse of :func:`entity_key`: (tenant id, entity id).

    Raises:
        ValueError: no key that :func:`entity_key` makes.
    """
    tenant, separator, entity = key.partition(SEPARATOR)
    parts = _unescape(tenant), _unescape(entity)
    if not separator or entity_key(*parts) != key:
        raise ValueError(f"{key!r} is no entity key")
    return parts


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace(SEPARATOR, "%2F")


def _unescape(text: str) -> str:
    return text.replace("%2F", SEPARATOR).replace("%25", "%")
