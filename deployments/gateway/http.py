"""The few pieces of HTTP that the hot path needs, straight on ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

from deployments.client_headers import usable_id
from deployments.gateway.compressed import Aside, decompress, in_a_thread, is_compressed
from weir.errors import BodyTooLargeError, UnsupportedMediaTypeError, WeirError
from weir.errors import error_headers as headers_of_error

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HeaderPairs = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name. HTTP knows bytes only: they are UTF-8 where they
    can be, and else Latin-1, which is what a browser sends."""
    for key, value in scope["headers"]:
        if key == name:
            try:
                return str(value.decode())
            except UnicodeDecodeError:
                return str(value.decode("latin-1"))
    return None


def request_id(scope: Scope) -> str:
    """What the request is called, where whoever is in front has given it a name."""
    return usable_id(header(scope, b"x-request-id")) or ""


async def read_json_body(
    scope: Scope, receive: Receive, max_bytes: int, aside: Aside = in_a_thread
) -> bytes:
    """The whole body, decompressed (a long one ``aside``) and without a byte order mark.

    Raises:
        UnsupportedMediaTypeError: it says that it is not JSON, or compressed in an unknown way.
        BodyTooLargeError: it is longer than ``max_bytes``, announced or found.
        BadRequestError: it cannot be decompressed.
        ClientGoneError: the client left before the end.
    """
    content_type = header(scope, b"content-type")
    if content_type and content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError(
            f"Content-Type must be application/json, not {content_type[:80]!r}.",
            param="Content-Type",
        )
    compressed = is_compressed(header(scope, b"content-encoding"))
    raw = await read_body(scope, receive, max_bytes)
    if compressed:
        raw = await decompress(raw, max_bytes, aside)
    return raw.removeprefix(_BYTE_ORDER_MARK)


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body, as it was sent.

    Raises:
        BodyTooLargeError: it is longer than ``max_bytes``, announced or found.
        ClientGoneError: the client left before the end.
    """
    announced = header(scope, b"content-length")
    if announced and announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    return await _read(receive, max_bytes)


async def _read(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGoneError
        part = event.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
        if not event.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def start(send: Send, status: int, headers: HeaderPairs) -> None:
    """Send status line and headers."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def send_bytes(send: Send, status: int, body: bytes, headers: HeaderPairs) -> None:
    """A whole response."""
    await start(send, status, [*headers, (b"content-length", str(len(body)).encode())])
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send, error: WeirError, body: dict[str, Any], headers: HeaderPairs = ()
) -> None:
    """An error as ``body``, with Retry-After where a retry can help."""
    extra = [(k.encode(), v.encode()) for k, v in headers_of_error(error).items()]
    await send_bytes(send, error.status, orjson.dumps(body), [JSON, *headers, *extra])


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {max_bytes} bytes.", param="body")
