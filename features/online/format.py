"""Where Feast's online store puts things in Redis: one hash per entity.

Source: Feast's ``docs/specs/online_store_format.md``, and for the hash's key what Feast 0.67 does
(the page describes an older key): ``serialize_entity_key(version 3) + project``. Written anew from
the format, because importing Feast takes seconds and 150 MB; ``tests/conformance`` writes with
Feast and reads with this.
"""

from __future__ import annotations

import struct

PROJECT = "weir"
JOIN_KEY = "entity"
_STRING_TYPE = 2
"""``feast.types.ValueType.STRING``."""


def hash_key(entity: str, join_key: str = JOIN_KEY, project: str = PROJECT) -> bytes:
    """The Redis key of an entity with one join key of type string."""
    return hash_key_prefix(join_key) + hash_key_suffix(entity, project)


def hash_key_prefix(join_key: str = JOIN_KEY) -> bytes:
    """What all entities of a join key begin with."""
    name = join_key.encode()
    return struct.pack("<III", 1, _STRING_TYPE, len(name)) + name


def hash_key_suffix(entity: str, project: str = PROJECT) -> bytes:
    """What follows: the value's type, length and bytes, then the project."""
    value = entity.encode()
    return struct.pack("<II", _STRING_TYPE, len(value)) + value + project.encode()


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
