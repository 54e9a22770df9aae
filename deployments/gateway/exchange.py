"""One HTTP exchange: what came in, what has gone out, and what it cost."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from deployments.gateway import http
from deployments.gateway.answers import Counts, error_event
from deployments.gateway.http import HeaderPairs, Receive, Scope, Send
from deployments.gateway.steps import Body
from features.enrichment import Enrichment
from weir.errors import WeirError, error_body

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


@dataclass(slots=True)
class Exchange:
    """Mutable: filled step by step. Times are monotonic seconds.

    ``request_id`` may be the client's own, and so may come twice; ``serial`` is ours, and unique.
    """

    scope: Scope
    receive: Receive
    send: Send
    request_id: str = ""
    serial: str = field(default_factory=lambda: secrets.token_hex(8))
    body_bytes: int = 0
    started_s: float = field(default_factory=time.monotonic)
    first_output_s: float | None = None
    status: int = 0
    error_code: str = ""
    tenant: str = ""
    model: str = ""
    counts: Counts = field(default_factory=Counts)
    enrichment: Enrichment[Body] | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    streaming: bool = False

    def __post_init__(self) -> None:
        given = self.header(b"x-request-id") or ""
        usable = 0 < len(given) <= 128 and _ID_CHARACTERS.issuperset(given)
        self.request_id = given if usable else secrets.token_hex(12)

    def header(self, name: bytes) -> str | None:
        """A request header by its lower-case name."""
        return http.header(self.scope, name)

    def enriched(self, enrichment: Enrichment[Body]) -> None:
        """What the features were; the response's headers say so."""
        self.enrichment = enrichment
        self.headers.extend(enrichment.headers())

    def output_arrived(self) -> None:
        """Called for each piece of output; the first one fixes TTFT."""
        if self.first_output_s is None:
            self.first_output_s = time.monotonic()

    async def begin_stream(self) -> None:
        """Status 200 and the headers of an event stream."""
        self.status = 200
        self.streaming = True
        await http.start(self.send, 200, [*http.EVENT_STREAM, *self.headers])

    async def send_event(self, event: bytes) -> None:
        """A piece of the event stream."""
        await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_stream(self, event: bytes) -> None:
        """The last piece."""
        await self.send({"type": "http.response.body", "body": event, "more_body": False})

    async def answer(self, status: int, body: bytes, headers: HeaderPairs = ()) -> None:
        """A whole JSON response."""
        self.status = status
        await http.send_bytes(self.send, status, body, [http.JSON, *headers, *self.headers])

    async def fail(self, error: WeirError) -> None:
        """An error: as a response, or as the last event of a stream that has begun."""
        self.error_code = error.code or error.type
        if self.streaming:
            await self.end_stream(error_event(error_body(error)))
            return
        self.status = error.status
        await http.send_error(self.send, error, self.headers)
