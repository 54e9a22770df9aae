from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.batches.lines import LineError, LineSplitter, RawLine, read_line

GOOD = b'{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"n": 1.0}}'


def split(blocks: list[bytes], most: int = 1000) -> list[RawLine]:
    splitter = LineSplitter(most)
    lines = [line for block in blocks for line in splitter.feed(block)]
    return lines + list(splitter.end())


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\xef", b"\n"))), st.integers(1, 7))
def test_lines_do_not_depend_on_the_blocks(pieces: list[bytes], size: int) -> None:
    whole = b"".join(pieces)
    blocks = [whole[i : i + size] for i in range(0, len(whole), size)]
    lines = split(blocks)
    assert lines == split([whole] if whole else [])
    assert (
        [line.raw for line in lines] == whole.splitlines(keepends=True)
        or b"\r" in whole
        or (b"".join(line.raw or b"" for line in lines) == whole)
    )
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert whole[line.offset : line.offset + line.size] == line.raw


def test_a_long_line_is_not_held() -> None:
    splitter = LineSplitter(10)
    assert list(splitter.feed(b"ab\n")) == [RawLine(1, 0, 3, b"ab\n")]
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 1000)) == []
        assert sum(map(len, splitter._held)) <= 10
    long, short = splitter.feed(b"\ncd\n")
    assert long == RawLine(2, 3, 1_000_001, None)
    assert short == RawLine(3, 1_000_004, 3, b"cd\n")


def test_a_byte_order_mark_is_skipped() -> None:
    (line,) = split([b"\xef\xbb\xbf" + GOOD + b"\n"])
    assert read_line(line.raw or b"").custom_id == "a"


def test_the_body_stays_as_it_is() -> None:
    assert bytes(read_line(GOOD).body) == b'{"n": 1.0}'


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json_line"),
        (b"{", "invalid_json_line"),
        (b"[" * 100_000, "invalid_request"),
        (GOOD.replace(b'"a"', b'"\xff"'), "invalid_json_line"),
        (GOOD.replace(b'"a"', b"1"), "invalid_request"),
        (GOOD.replace(b'"a"', b'""'), "invalid_custom_id"),
        (GOOD.replace(b'"a"', b'"%b"' % (b"a" * 513)), "invalid_custom_id"),
        (GOOD.replace(b"POST", b"PUT"), "invalid_method"),
        (GOOD.replace(b', "body": {"n": 1.0}', b""), "invalid_request"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(raw: bytes, code: str) -> None:
    with pytest.raises(LineError) as refused:
        read_line(raw)
    assert refused.value.code == code
