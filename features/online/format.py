"""Where Feast's online store puts things in Redis: one hash per entity.

Source: Feast's ``docs/specs/online_store_format.md``, and for the hash's key what Feast 0.67 does
(the page describes an older key): ``serialize_entity_key(version 3) + project``. Written anew from
the format, because importing Feast takes seconds and 150 MB; ``tests/conformance`` writes with
Feast and reads with this.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal

PROJECT = "weir"
JOIN_KEY = "entity"

KeyValue = tuple[Literal["string"], str] | tuple[Literal["int32", "int64", "unix_timestamp"], int]
"""The type and the value of a join key."""
_VALUE_TYPES: Final = {"string": 2, "int32": 3, "int64": 4, "unix_timestamp": 8}
"""Numbers of ``feast.types.ValueType``."""


def hash_key(entity: str, join_key: str = JOIN_KEY, project: str = PROJECT) -> bytes:
    """The Redis key of an entity with one join key of type string."""
    return serialized_key([(join_key, ("string", entity))]) + project.encode()


def serialized_key(pairs: Sequence[tuple[str, KeyValue]]) -> bytes:
    """What Feast's ``serialize_entity_key`` makes of join keys and their values in its version 3,
    the only one that Feast still writes: the number of keys, all names, then all values, each with
    its type and its length. ``pairs`` are sorted by name."""
    parts = [struct.pack("<I", len(pairs))]
    for name, _ in pairs:
        parts += _with_length("string", name.encode())
    for _, (kind, value) in pairs:
        data = value.encode() if isinstance(value, str) else _packed(kind, value)
        parts += _with_length(kind, data)
    return b"".join(parts)


def _packed(kind: str, value: int) -> bytes:
    return struct.pack("<i" if kind == "int32" else "<q", value)


def _with_length(kind: str, data: bytes) -> tuple[bytes, bytes]:
    return struct.pack("<II", _VALUE_TYPES[kind], len(data)), data


def value_field(view: str, feature: str) -> bytes:
    """The hash field that holds a feature: 4 bytes, little-endian."""
    return struct.pack("<I", murmur3_32(f"{view}:{feature}".encode()))


def timestamp_field(view: str) -> bytes:
    """The hash field that holds a view's event time (``google.protobuf.Timestamp``)."""
    return f"_ts:{view}".encode()


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3 x86_32 (Austin Appleby, public domain), as an unsigned number."""
    state, mask = seed, 0xFFFFFFFF
    whole = len(data) & ~3
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        state = _rotate(state ^ _mixed(block), 13)
        state = (state * 5 + 0xE6546B64) & mask
    if tail := data[whole:]:
        state ^= _mixed(int.from_bytes(tail, "little"))
    state ^= len(data)
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & mask
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & mask
    return state ^ (state >> 16)


def _mixed(block: int) -> int:
    scrambled = _rotate((block * 0xCC9E2D51) & 0xFFFFFFFF, 15)
    return (scrambled * 0x1B873593) & 0xFFFFFFFF


def _rotate(number: int, bits: int) -> int:
    return ((number << bits) | (number >> (32 - bits))) & 0xFFFFFFFF
