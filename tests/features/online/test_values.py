"""The reader of Feast's values, on bytes made by hand (Feast itself: tests/conformance)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online.format import hash_key, murmur3_32, timestamp_field, value_field
from features.online.values import TYPES, GarbageError, decode_timestamp, decode_value


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [("", 0, 0), ("", 1, 0x514E28B7), ("test", 0, 0xBA6BD213), ("Hello, world!", 0, 0xC0363E43)],
)
def test_murmur_gives_the_published_numbers(text: str, seed: int, expected: int) -> None:
    assert murmur3_32(text.encode(), seed) == expected


def test_the_names_in_redis() -> None:
    assert timestamp_field("v") == b"_ts:v"
    assert len(value_field("v", "f")) == 4
    assert hash_key("a/1") == (
        struct.pack("<III", 1, 2, 6) + b"entity" + struct.pack("<II", 2, 3) + b"a/1" + b"weir"
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", None),
        (b"\x98\x01\x00", None),  # null_val
        (b"\x12\x00", ""),
        (b"\x12\x02hi", "hi"),
        (b"\x12\x80\x01" + b"x" * 128, "x" * 128),
        (b"\x0a\x01\xff", b"\xff"),
        (b"\x20\x05", 5),
        (b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -1),
        (b"\x18\x2a", 42),
        (b"\x29" + struct.pack("<d", 2.5), 2.5),
        (b"\x35" + struct.pack("<f", 0.5), 0.5),
        (b"\x38\x01", True),
        (b"\x38\x00", False),
        (b"\x62\x06\x0a\x01a\x0a\x01b", ["a", "b"]),  # string_list_val
        (b"\x72\x04\x0a\x02\x01\x02", [1, 2]),  # int64_list_val, packed
        (b"\x72\x04\x08\x01\x08\x02", [1, 2]),  # the same, not packed
        (b"\x62\x00", []),
    ],
)
def test_values_are_read(data: bytes, value: object) -> None:
    found = decode_value(data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",
        b"\x12\x05hi",
        b"\x12\x02\xff\xfe",
        b"\x20",
        b"\x20\xff",
        b"\x20" + b"\xff" * 11,
        b"\x29\x00\x00",
        b"\x35\x00",
        b"\x22\x00",  # an int64 with a string's wire type
        b"\xa2\x01\x00",  # a map
        b"not a value at all",
        b"\x62\x02\x10\x01",  # a list with a field 2
        b"\x6a\x05",
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(GarbageError):
        decode_value(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_garbage(data: bytes) -> None:
    try:
        value = decode_value(data)
    except GarbageError:
        return
    assert value is None or isinstance(value, str | int | float | bool | bytes | list)


@given(st.binary(max_size=24))
def test_any_bytes_are_a_time_or_garbage(data: bytes) -> None:
    try:
        assert isinstance(decode_timestamp(data), float)
    except GarbageError:
        return


def test_a_timestamp_has_nanoseconds() -> None:
    assert decode_timestamp(b"\x08\x0a\x10\x80\xca\xb5\xee\x01") == pytest.approx(10.5)
    assert decode_timestamp(b"") == 0.0
    with pytest.raises(GarbageError):
        decode_timestamp(b"\x12\x00")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("string", "a", 1),
        ("int", 1, True),
        ("float", 1, "1"),
        ("bool", True, 1),
        ("strings", ["a"], ["a", 1]),
        ("ints", [], "a"),
        ("floats", [1, 0.5], [True]),
        ("bools", [True], [1]),
    ],
)
def test_types_are_told_apart(kind: str, good: object, bad: object) -> None:
    assert TYPES[kind](good)  # type: ignore[arg-type]
    assert not TYPES[kind](bad)  # type: ignore[arg-type]
