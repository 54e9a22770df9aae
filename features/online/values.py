"""Reads ``feast.types.Value`` and ``google.protobuf.Timestamp`` from their wire format.

Field numbers are those of Feast's ``protos/feast/types/Value.proto``; the wire format is
https://protobuf.dev/programming-guides/encoding/. Scalars and lists of scalars are read; the kinds
that no feature of ours has (maps, sets, structs, UUIDs, decimals, nested lists) are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

Scalar = str | int | float | bool | bytes
FeatureValue = Scalar | list[Scalar] | None

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIRST_LIST, _LAST_LIST, _LIST_OFFSET = 11, 18, 10
_NULL = 19
_STRING_TAG = 0x12
_INT64_TAG = 0x20
_WIRE_TYPES = {
    1: _BYTES,
    2: _BYTES,
    3: _VARINT,
    4: _VARINT,
    5: _FIXED64,
    6: _FIXED32,
    7: _VARINT,
    8: _VARINT,
}
"""Wire type of each scalar of ``Value``, by field number: bytes, string, int32, int64, double,
float, bool, unix_timestamp. The list of a scalar has the scalar's number plus 10."""


class GarbageError(ValueError):
    """Bytes that are no value of a kind that can be read."""


def decode_value(data: bytes) -> FeatureValue:
    """The Python value of a serialized ``Value``; None for Feast's null (no field set).

    Raises:
        GarbageError: not a ``Value``, or of a kind that is not read.
    """
    try:
        # The two commonest, short: one byte of tag, one of length or of number.
        if data[0] == _STRING_TAG and data[1] < 0x80 and len(data) == data[1] + 2:
            return data[2:].decode()
        if data[0] == _INT64_TAG and len(data) == 2 and data[1] < 0x80:
            return data[1]
        return _decode(data)
    except IndexError:
        if not data:
            return None
        raise GarbageError("a value ends too early") from None
    except (UnicodeDecodeError, struct.error) as error:
        raise GarbageError(f"not a value: {error}") from None


def _decode(data: bytes) -> FeatureValue:
    found: FeatureValue = None
    at = 0
    while at < len(data):  # a oneof given twice: the last one counts, says the encoding
        number, wire, at = _tag(data, at)
        if number in _WIRE_TYPES:
            if wire != _WIRE_TYPES[number]:
                raise GarbageError(f"field {number} has wire type {wire}")
            found, at = _scalar(data, at, number)
        elif _FIRST_LIST <= number <= _LAST_LIST and wire == _BYTES:
            inner, at = _chunk(data, at)
            found = _list(inner, number - _LIST_OFFSET)
        elif number == _NULL and wire == _VARINT:
            _, at = _varint(data, at)
            found = None
        else:
            raise GarbageError(f"field {number} is of no kind that can be read")
    return found


def decode_timestamp(data: bytes) -> float:
    """Seconds since the epoch of a serialized ``Timestamp``.

    Raises:
        GarbageError: not a ``Timestamp``.
    """
    seconds, nanos, at = 0, 0, 0
    try:
        while at < len(data):
            number, wire, at = _tag(data, at)
            if number not in (1, 2) or wire != _VARINT:
                raise GarbageError("not a timestamp")
            value, at = _varint(data, at)
            if number == 1:
                seconds = _signed(value)
            else:
                nanos = _signed(value)
    except IndexError:
        raise GarbageError("a timestamp ends too early") from None
    if not 0 <= nanos < 1_000_000_000:
        raise GarbageError("a timestamp with impossible nanoseconds")
    return seconds + nanos / 1e9


def _tag(data: bytes, at: int) -> tuple[int, int, int]:
    tag, at = _varint(data, at)
    return tag >> 3, tag & 7, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise GarbageError("a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _chunk(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(data, at)
    end = at + length
    if end > len(data):
        raise GarbageError("a value ends too early")
    return data[at:end], end


def _scalar(data: bytes, at: int, number: int) -> tuple[Scalar, int]:
    wire = _WIRE_TYPES[number]
    if wire == _BYTES:
        chunk, at = _chunk(data, at)
        return (chunk.decode() if number == 2 else chunk), at
    if wire == _VARINT:
        value, at = _varint(data, at)
        return (value != 0 if number == 7 else _signed(value)), at
    form, size = ("<d", 8) if wire == _FIXED64 else ("<f", 4)
    if at + size > len(data):
        raise GarbageError("a number ends too early")
    return struct.unpack_from(form, data, at)[0], at + size


def _list(data: bytes, number: int) -> list[Scalar]:
    values: list[Scalar] = []
    at = 0
    while at < len(data):
        field, wire, at = _tag(data, at)
        if field != 1:
            raise GarbageError(f"a list with a field {field}")
        if wire == _BYTES and _WIRE_TYPES[number] != _BYTES:
            packed, at = _chunk(data, at)
            inner = 0
            while inner < len(packed):
                value, inner = _scalar(packed, inner, number)
                values.append(value)
        elif wire == _WIRE_TYPES[number]:
            value, at = _scalar(data, at, number)
            values.append(value)
        else:
            raise GarbageError(f"a list item of wire type {wire}")
    return values


Check = Callable[[FeatureValue], bool]


def _is(*kinds: type) -> Check:
    def check(value: FeatureValue) -> bool:
        return type(value) in kinds

    return check


def _is_list(*kinds: type) -> Check:
    def check(value: FeatureValue) -> bool:
        return isinstance(value, list) and all(type(item) in kinds for item in value)

    return check


TYPES: dict[str, Check] = {
    "string": _is(str),
    "int": _is(int),
    "float": _is(float, int),
    "bool": _is(bool),
    "strings": _is_list(str),
    "ints": _is_list(int),
    "floats": _is_list(float, int),
    "bools": _is_list(bool),
}
"""What a feature may be declared as, and the check of a value that was read. Whole numbers are
taken for a float; a bool is no number."""
