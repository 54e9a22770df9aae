"""One HTTP exchange: what came in, what has gone out, and what it cost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
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
    ``counts`` are those of the model ``answered_by``; ``discarded`` has what other models
    generated for this request and nobody saw, which is paid for too.
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
    answered_by: str = ""
    discarded: list[tuple[str, Counts]] = field(default_factory=list)
    admitted_s: float | None = None
    on_first_output: Callable[[float], None] | None = None
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
            if self.on_first_output is not None:
                self.on_first_output(self.first_output_s)

    @property
    def begun(self) -> bool:
        """Whether the client has been sent anything."""
        return self.status != 0

    @property
    def usage(self) -> Counts:
        """All tokens that the request has cost, whichever model they were."""
        legs = [self.counts, *(counts for _, counts in self.discarded)]
        return Counts(
            sum(c.prompt_tokens for c in legs),
            sum(c.cached_tokens for c in legs),
            sum(c.output_tokens for c in legs),
        )

    def set_header(self, name: bytes, value: str) -> None:
        """A response header, in place of one of that name."""
        self.headers[:] = [pair for pair in self.headers if pair[0] != name]
        self.headers.append((name, value.encode()))

    def start_over(self) -> None:
        """Another attempt begins: nothing of the last one shows. What it had generated when its
        replica failed is not paid for."""
        self.counts = Counts()
        self.first_output_s = None
        self.admitted_s = None
        self.on_first_output = None

    def discard(self) -> None:
        """Keep the counts of an answer that nobody will see, and begin another."""
        self.discarded.append((self.answered_by, self.counts))
        self.start_over()

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
