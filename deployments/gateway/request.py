"""A request as the gateway carries it, and the door through which it comes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from deployments.gateway import http
from deployments.gateway.adapters import Adapter
from deployments.gateway.bodies import Body, TextBody
from deployments.gateway.compressed import Aside
from deployments.gateway.dialects.base import Dialect
from features.enrichment import Enrichment
from weir.tenancy import Caller, Tenant

Header = Callable[[bytes], str | None]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, once it is known who asks and that it can be asked.

    ``id`` may be the client's own, and so may come twice; ``serial`` is the gateway's, and unique.
    ``arrival_s`` is on the event loop's clock, and so is ``deadline_s``: when the client has said
    that it will give up. ``body`` is the enriched one as soon as ``enrichment`` is there;
    its ``model`` is the name of a model, also where the client named an ``adapter`` of it.
    ``batch``: the id of the batch job that it is a line of.
    """

    id: str
    serial: str
    caller: Caller
    dialect: Dialect
    body: Body
    priority_class: str
    header: Header
    arrival_s: float
    body_bytes: int = 0
    deadline_s: float | None = None
    enrichment: Enrichment[TextBody] | None = None
    adapter: Adapter | None = None
    batch: str | None = None

    @property
    def tenant(self) -> Tenant:
        """Whose request it is."""
        return self.caller.tenant


class Door(Protocol):
    """Where a request comes from: HTTP, or a caller in this process.

    ``authenticated``: who asks, where that is known already; else the headers must say so.
    ``batch``: the id of the batch job that the request is a line of. No client can say either.
    """

    @property
    def authenticated(self) -> Caller | None: ...

    @property
    def batch(self) -> str | None: ...

    def header(self, name: bytes) -> str | None:
        """A header by its lower-case name."""
        ...

    def read(self, max_bytes: int, aside: Aside) -> Awaitable[bytes]:
        """The whole body. What comes compressed, and is long, is decompressed ``aside``.

        Raises:
            WeirError: it is no JSON, or too large.
            ClientGoneError: the client left before its end.
        """
        ...

    def discard(self) -> Awaitable[None]:
        """Take what still comes of the body and keep none of it, until the client has left."""
        ...


class HttpDoor:
    """A request over HTTP."""

    authenticated = None
    batch = None

    def __init__(self, scope: http.Scope, receive: http.Receive) -> None:
        self._scope = scope
        self._receive = receive

    def header(self, name: bytes) -> str | None:
        return http.header(self._scope, name)

    async def read(self, max_bytes: int, aside: Aside) -> bytes:
        return await http.read_json_body(self._scope, self._receive, max_bytes, aside)

    async def discard(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class MemoryDoor:
    """A request of a caller in this process: batch jobs and tests."""

    def __init__(
        self,
        body: bytes,
        headers: Mapping[str, str],
        authenticated: Caller | None = None,
        batch: str | None = None,
    ) -> None:
        self.authenticated = authenticated
        self.batch = batch
        self._body = body
        self._headers = {name.lower().encode(): value for name, value in headers.items()}

    def header(self, name: bytes) -> str | None:
        return self._headers.get(name)

    async def read(self, max_bytes: int, aside: Aside) -> bytes:
        return self._body

    async def discard(self) -> None:
        await asyncio.Event().wait()  # whoever asks from within does not leave


def patience_s(told: str | None) -> float | None:
    """For how many seconds a client waits for a whole answer, from what it says of its time-out."""
    try:
        seconds = float(told) if told else 0.0
    except ValueError:
        return None
    return seconds if 0.0 < seconds < math.inf else None


def streams(body: Body) -> bool:
    """Whether the client asked for an event stream."""
    return bool(getattr(body, "stream", False))
