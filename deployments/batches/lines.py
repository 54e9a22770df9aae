"""The lines of a batch's input: told apart without reading the whole file, and understood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_ID_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as it stands in the file. ``number`` counts from 1, blank lines too. ``raw`` is None
    for one that is too long; ``size`` is its length in bytes, with the end of the line."""

    number: int
    offset: int
    size: int
    raw: bytes | None

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it."""
        return self.raw is not None and not self.raw.strip()


class LineSplitter:
    """Told the file block by block, it says which lines have ended. Holds at most a line of
    ``max_line_bytes`` and a block. ``number`` and ``offset`` are of the first line."""

    def __init__(self, max_line_bytes: int, number: int = 1, offset: int = 0) -> None:
        self._most = max_line_bytes
        self._number = number
        self._offset = offset
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._too_long = False

    def feed(self, block: bytes) -> Iterator[RawLine]:
        """The lines that end in the next block."""
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            yield self._ended(block[start : end + 1])
            start = end + 1
        self._hold(block[start:])

    def end(self) -> Iterator[RawLine]:
        """The last line, where the file does not end with the end of a line."""
        if self._held_bytes:
            yield self._ended(b"")

    def _hold(self, rest: bytes) -> None:
        self._held_bytes += len(rest)
        if self._held_bytes > self._most:
            self._too_long = True
            self._held.clear()
        elif rest:
            self._held.append(rest)

    def _ended(self, rest: bytes) -> RawLine:
        self._hold(rest)
        raw = None if self._too_long else b"".join(self._held)
        if raw is not None and self._offset == 0:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        line = RawLine(self._number, self._offset, self._held_bytes, raw)
        self._number += 1
        self._offset += self._held_bytes
        self._held, self._held_bytes, self._too_long = [], 0, False
        return line


class LineError(Exception):
    """A line is not what it should be. ``code`` and ``param`` are for the client."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class Line(msgspec.Struct, frozen=True):
    """One request: ``body`` is its JSON as it stands in the line."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Named(msgspec.Struct):
    model: str = ""


_decoder = msgspec.json.Decoder(Line)
_named_decoder = msgspec.json.Decoder(_Named)


def named_model(line: Line) -> str:
    """The model that a line's body names. The line has been found good."""
    return _named_decoder.decode(line.body).model


def read_line(raw: bytes) -> Line:
    """Understand a line.

    Raises:
        LineError: it is not JSON in UTF-8, or a field is missing or wrong.
    """
    try:
        raw.decode()
        line = _decoder.decode(raw)
    except UnicodeDecodeError as error:
        raise LineError(
            "invalid_json_line", f"This line is not UTF-8 (byte {error.start})."
        ) from None
    except msgspec.ValidationError as error:
        raise LineError("invalid_request", f"{error}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise LineError("invalid_json_line", f"This line is no JSON: {error}.") from None
    if not 1 <= len(line.custom_id) <= MAX_ID_CHARACTERS:
        told = f"custom_id: 1 to {MAX_ID_CHARACTERS} characters are expected."
        raise LineError("invalid_custom_id", told, "custom_id")
    if line.method.upper() != "POST":
        told = f"method: {line.method[:16]!r} is not 'POST'."
        raise LineError("invalid_method", told, "method")
    return line
