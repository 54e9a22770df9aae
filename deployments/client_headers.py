"""Which headers of a client's request may not reach Serve as they are.

Serve reads a few headers before weir's application is called: it obeys some of them, and decodes
the values of others strictly, so that a byte that is not UTF-8 is its error 500. HAProxy removes
them (:mod:`deployments.haproxy_config`). :class:`ClientHeaders` does the same in the gateway's
process, for requests that come past HAProxy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from starlette.middleware import Middleware

#: Serve obeys these: no cancelling when the client leaves, a time limit, a model to load.
STEERING = (
    "x-request-disconnect-disabled",
    "x-request-timeout-seconds",
    "serve-multiplexed-model-id",
)
#: Serve decodes these strictly.
PLAIN_TEXT = ("x-session-id", "traceparent", "tracestate", "baggage")
REQUEST_ID = "x-request-id"
#: What a client may choose as the id of its request. It stands in answers, logs and headers.
REQUEST_ID_PATTERN = "^[A-Za-z0-9._:-]{1,128}$"

#: The function that Serve calls for the middlewares of its HTTP servers.
CALLBACK = "deployments.client_headers:middlewares"

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
_PLAIN_TEXT = frozenset(name.encode() for name in PLAIN_TEXT)
_REQUEST_ID = REQUEST_ID.encode()
Pairs = Sequence[tuple[bytes, bytes]]


def _spellings(name: str) -> Iterator[bytes]:
    """With each dash as a dash and as an underscore: to Serve they are the same."""
    for dashes in product("-_", repeat=name.count("-")):
        yield (name.replace("-", "%s") % dashes).encode()


_STEERING = frozenset(spelling for name in STEERING for spelling in _spellings(name))
_SUSPECT = _STEERING | _PLAIN_TEXT | {_REQUEST_ID}


def usable_id(given: str | None) -> str | None:
    """The client's own request id, if it can stand in headers and logs."""
    usable = given and len(given) <= 128 and _ID_CHARACTERS.issuperset(given)
    return given if usable else None


def harmless(headers: Pairs) -> list[tuple[bytes, bytes]]:
    """The headers that may reach Serve. Names are in lower case."""
    return [pair for pair in headers if pair[0] not in _SUSPECT or _is_harmless(*pair)]


def _is_harmless(name: bytes, value: bytes) -> bool:
    if name == _REQUEST_ID:
        return usable_id(value.decode("latin-1")) is not None
    if name in _PLAIN_TEXT:
        return value.isascii()
    return name not in _STEERING


class ClientHeaders:
    """ASGI: removes such headers before anything of Serve's sees the request. Serve then makes an
    id for a request without a usable one, which weir uses too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if "headers" in scope:
            scope["headers"] = harmless(scope["headers"])
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """See :data:`CALLBACK`; the last one is called first."""
    return [Middleware(ClientHeaders)]
