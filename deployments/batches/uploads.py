"""Uploads: ``multipart/form-data`` read piece by piece, the file straight into the storage.

The fields may come in any order, before or behind the file. Nothing but a field is held in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.batches.storage import BLOCK_BYTES, NewContent
from deployments.batches.threads import Threads
from weir.errors import BadRequestError, BodyTooLargeError, RequestTimeoutError

#: What a form has beside the file: field values, headers of parts, boundaries.
FORM_BYTES = 64 * 1024
_FIELD_BYTES = 4096
_FIELDS = 32
#: A client that sends nothing for so long is given up.
_SILENCE_S = 60.0
_FILE = "file"


@dataclass(slots=True)
class Form:
    """What a form said. ``filename`` is None until the file has come."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


class FormReader:
    """Told the body piece by piece, it says what is the file's.

    Raises (from :meth:`feed` and :meth:`end`):
        BadRequestError: it is no form, has a file twice, or too many or too large fields.
    """

    def __init__(self, content_type: str | None) -> None:
        kind, options = parse_options_header(content_type or "")
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequestError(
                "Content-Type: multipart/form-data with a boundary is expected.",
                param="Content-Type",
            )
        self.form = Form()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._part: str | None = None
        self._text = bytearray()
        self._data: list[bytes] = []
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, a, b: self._name.extend(data[a:b]),
                "on_header_value": lambda data, a, b: self._value.extend(data[a:b]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_goes_on,
                "on_part_end": self._part_ends,
                "on_end": self._form_ends,
            },
        )

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the file that are in the next piece of the body."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise BadRequestError("The body is no multipart/form-data.", param="body") from None
        pieces, self._data = self._data, []
        return pieces

    def end(self) -> Form:
        """The whole form."""
        if not self._ended:
            raise BadRequestError("The body ends in the middle of the form.", param="body")
        if self.form.filename is None:
            raise BadRequestError("file: a file is needed.", param=_FILE)
        return self.form

    def _part_begins(self) -> None:
        self._headers = {}
        self._part = None

    def _header_ends(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        told = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(told)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        self._text.clear()
        if self._part == _FILE:
            if self.form.filename is not None:
                raise BadRequestError("file: one file is expected.", param=_FILE)
            self.form.filename = shown_name(options.get(b"filename", b""))
        elif len(self.form.fields) >= _FIELDS:
            raise BadRequestError(f"At most {_FIELDS} fields are expected.", param="body")

    def _part_goes_on(self, data: bytes, start: int, end: int) -> None:
        if self._part == _FILE:
            self._data.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _FIELD_BYTES:
            raise BadRequestError(f"A field is longer than {_FIELD_BYTES} bytes.", param="body")

    def _part_ends(self) -> None:
        if self._part is not None and self._part != _FILE:
            self.form.fields[self._part] = self._text.decode("utf-8", "replace")

    def _form_ends(self) -> None:
        self._ended = True


def shown_name(given: bytes) -> str:
    """A file's name as clients are told it: at most 255 characters, none of them invisible, and no
    folders. Never a part of a path."""
    name = given.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:255] or "upload"


async def receive(
    body: AsyncIterator[bytes],
    reader: FormReader,
    content: NewContent,
    max_bytes: int,
    threads: Threads,
) -> Form:
    """Read a form to its end; the file goes into ``content``.

    Raises:
        BadRequestError: it is no form, or not the right one.
        BodyTooLargeError: the file has more than ``max_bytes``.
        RequestTimeoutError: the client went silent.
        StorageAwayError: the storage does not take it.
    """
    held: list[bytes] = []
    held_bytes = received = 0
    async for piece in _patient(body):
        received += len(piece)
        if received > max_bytes + FORM_BYTES:
            raise too_large(max_bytes)
        for data in reader.feed(piece):
            held.append(data)
            held_bytes += len(data)
        if content.size + held_bytes > max_bytes:
            raise too_large(max_bytes)
        if held_bytes >= BLOCK_BYTES:
            await threads.run(content.write, b"".join(held))
            held, held_bytes = [], 0
    form = reader.end()
    if held:
        await threads.run(content.write, b"".join(held))
    return form


def too_large(max_bytes: int) -> BodyTooLargeError:
    """The error for a file that is larger than that."""
    return BodyTooLargeError(f"file: larger than {max_bytes} bytes.", param=_FILE)


async def _patient(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    pieces = aiter(body)
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestTimeoutError(
                f"The upload stood still for {_SILENCE_S:g} s.", param=_FILE
            ) from None
        yield piece
