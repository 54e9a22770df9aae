"""Records as bytes: each in a frame with its length and a checksum, so that a reader finds where
writing broke off."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from weir.ledger.record import Entry

_HEAD = struct.Struct("<II")
#: No record comes near this: a length beyond it is none.
MAX_FRAME_BYTES = 64 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


@dataclass(frozen=True, slots=True)
class Span:
    """``count`` whole frames that take ``size`` bytes. ``torn``: what follows them is no frame."""

    count: int
    size: int
    torn: bool


def pack(entries: Iterable[Entry]) -> bytes:
    """Frames, one behind the other."""
    parts = []
    for entry in entries:
        body = _encode(entry)
        parts.append(_HEAD.pack(len(body), zlib.crc32(body)))
        parts.append(body)
    return b"".join(parts)


def measure(data: bytes, most_bytes: int) -> Span:
    """The whole frames at the beginning of ``data``: as many as fit into ``most_bytes``, and at
    least one where there is one."""
    count = at = 0
    size = len(data)
    while at + _HEAD.size <= size:
        length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if length > MAX_FRAME_BYTES or end > size:
            break
        if count and end > most_bytes:
            return Span(count, at, torn=False)
        if zlib.crc32(data[at + _HEAD.size : end]) != checksum:
            break
        count, at = count + 1, end
    return Span(count, at, torn=at < size)


def unpack(data: bytes) -> list[Entry]:
    """The records in whole frames.

    Raises:
        ValueError: there is something else in ``data``.
    """
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        try:
            length, checksum = _HEAD.unpack_from(data, at)
        except struct.error as error:
            raise ValueError(str(error)) from error
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        if zlib.crc32(body) != checksum:
            raise ValueError("a frame's checksum is wrong")
        entries.append(_decode(body))
        at += _HEAD.size + length
    return entries
