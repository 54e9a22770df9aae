"""One keep-alive connection that asks again as soon as it has been answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

import httptools


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes. ``headers`` are sent with each request, e.g. the authorization."""

    host: str
    port: int
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, body: bytes) -> bytes:
        """The whole HTTP/1.1 request as bytes."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Result(Protocol):
    """What is known of an answer that has ended. ``error`` is None for a complete one."""

    @property
    def error(self) -> str | None: ...


ResultT = TypeVar("ResultT", bound=Result)
ResultT_co = TypeVar("ResultT_co", bound=Result, covariant=True)


class Watcher(Protocol[ResultT_co]):
    """Watches one answer. Times are on the connection's clock."""

    def header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        ...

    def body(self, part: bytes, now_s: float) -> None:
        """A piece of the body has arrived."""
        ...

    def finish(self, status: int, now_s: float) -> ResultT_co:
        """The answer is over."""
        ...

    def fail(self, reason: str, now_s: float) -> ResultT_co:
        """The connection broke, or time ran out."""
        ...


class StreamConnection(asyncio.Protocol, Generic[ResultT]):
    """Sends what ``next_request`` gives, hands what came of it to ``report``, and repeats.

    ``next_request`` returns the request's bytes and what makes a watcher of its answer from the
    time at which it was sent, or None when the load is over; then, or when the peer closes,
    ``closed`` is set. ``failed``: some answer was not complete.
    """

    def __init__(
        self,
        next_request: Callable[[], tuple[bytes, Callable[[float], Watcher[ResultT]]] | None],
        report: Callable[[ResultT], None],
        clock: Callable[[], float],
    ) -> None:
        self._next_request = next_request
        self._report = report
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._watch: Watcher[ResultT] | None = None
        self._now_s = 0.0
        self._status = 0
        self.closed = asyncio.Event()
        self.failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: ask at once."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """One read is one arrival: all it carries has the same time."""
        self._now_s = self._clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"bad HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was under way is lost with the connection."""
        self._now_s = self._clock()
        self._settle_failed(f"connection lost: {exc or 'closed by the server'}")
        self.closed.set()

    def give_up(self, reason: str) -> None:
        """Time has run out: count what is under way as failed and hang up."""
        self._now_s = self._clock()
        self._fail(reason)

    # Called by the HTTP parser, within data_received.

    def on_message_begin(self) -> None:
        """A new answer starts."""
        self._status = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._watch is not None:
            self._watch.header(name, value)

    def on_headers_complete(self) -> None:
        """Status line and headers are in."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, transfer coding removed."""
        if self._watch is not None:
            self._watch.body(body, self._now_s)

    def on_message_complete(self) -> None:
        """The answer is over: report it, ask again."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._hand_over(watch.finish(self._status, self._now_s))
        if self._parser.should_keep_alive():
            self._ask()
        elif self._transport is not None:
            self._transport.close()

    def _ask(self) -> None:
        assert self._transport is not None
        request = self._next_request()
        if request is None:
            self._transport.close()
            return
        data, watch = request
        self._watch = watch(self._clock())
        self._transport.write(data)

    def _fail(self, reason: str) -> None:
        self._settle_failed(reason)
        if self._transport is not None:
            self._transport.abort()

    def _settle_failed(self, reason: str) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._hand_over(watch.fail(reason, self._now_s))

    def _hand_over(self, sample: ResultT) -> None:
        self.failed = self.failed or sample.error is not None
        self._report(sample)
