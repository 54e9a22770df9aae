"""Request bodies that come compressed (``Content-Encoding``)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable

from weir.errors import BadRequestError, BodyTooLargeError, UnsupportedMediaTypeError

_NAME = "Content-Encoding"
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# zlib reads the header of either format.
_EITHER_FORMAT = 32 + zlib.MAX_WBITS
# So much is decompressed on the event loop: about 0.2 ms.
_ON_LOOP_BYTES = 64 * 1024
_MOST_MEMBERS = 64

Aside = Callable[[int, Callable[[], None]], Awaitable[None]]
"""Runs a function beside the event loop; the number says how long it may take, in bytes."""


async def in_a_thread(size: int, function: Callable[[], None]) -> None:
    """For bodies that few send: whoever waits for one of the loop's threads waits with others."""
    await asyncio.to_thread(function)


def is_compressed(encoding: str | None) -> bool:
    """Whether a body of this ``Content-Encoding`` has to be decompressed.

    Raises:
        UnsupportedMediaTypeError: nothing here can read it.
    """
    named = (encoding or "identity").strip().lower()
    if named in ("", "identity"):
        return False
    if named not in _ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"{_NAME} must be gzip, deflate or identity, not {named[:80]!r}.", param=_NAME
        )
    return True


async def decompress(data: bytes, max_bytes: int, aside: Aside = in_a_thread) -> bytes:
    """The body, never more than ``max_bytes`` of it in memory. What is long is decompressed
    ``aside``; zlib lets other threads run meanwhile.

    Raises:
        BodyTooLargeError: it would be longer.
        BadRequestError: it is not what its header says, or it is cut off.
    """
    inflate = _Inflate(data, max_bytes)
    if len(data) > _ON_LOOP_BYTES or not inflate.go_on(_ON_LOOP_BYTES):
        await aside(max(len(data), _ON_LOOP_BYTES), inflate.finish)
    return inflate.body()


class _Inflate:
    """One body. A gzip file may have several members, one after the other."""

    def __init__(self, data: bytes, max_bytes: int) -> None:
        self._left = data
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._members = 1
        self._decoder = zlib.decompressobj(_EITHER_FORMAT)

    def go_on(self, most_bytes: int) -> bool:
        """Decompress about so much more; true when all is done."""
        stop = self._size + most_bytes
        while self._size < stop and not self._is_done():
            self._step()
        return self._is_done()

    def finish(self) -> None:
        """Decompress the rest."""
        while not self.go_on(self._max_bytes):
            pass

    def body(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)

    def _is_done(self) -> bool:
        return self._decoder.eof and not self._left

    def _step(self) -> None:
        if self._decoder.eof:
            self._members += 1
            if self._members > _MOST_MEMBERS:
                raise BadRequestError("The compressed body has too many parts.", param=_NAME)
            self._decoder = zlib.decompressobj(_EITHER_FORMAT)
        try:
            part = self._decoder.decompress(self._left, _ON_LOOP_BYTES)
        except zlib.error:
            raise BadRequestError(
                f"The body is not compressed as its {_NAME} says.", param=_NAME
            ) from None
        self._left = self._decoder.unused_data or self._decoder.unconsumed_tail
        self._size += len(part)
        if self._size > self._max_bytes:
            raise BodyTooLargeError(
                f"The decompressed body is larger than {self._max_bytes} bytes.", param="body"
            )
        if not part and not self._left and not self._decoder.eof:
            raise BadRequestError("The compressed body is cut off.", param=_NAME)
        self._parts.append(part)
