"""Where answers go. Nothing of an answer is written before a leg commits.

:meth:`Sink.begin` gives an attempt its own :class:`Answer`. An event stream opens with the first
output; a whole answer is collected and written at the end. Until something of an answer has been
written, ``committed`` is false, the attempt can be dropped, and another one can begin: there is
nothing to undo.

An event stream that makes its client wait may be *opened* before that (:meth:`Sink.keep_open`,
called by :mod:`deployments.gateway.silence`): status line, headers and lines that clients skip.
They say nothing of the answer, so every rule about attempts holds as before. What changes is the
way out for an error: the status line is gone, so it becomes the stream's last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from deployments.gateway import http
from deployments.gateway.dialects import Dialect, Writer
from deployments.gateway.outputs import Collected, Counts, Output
from weir.errors import WeirError

Headers = Callable[[], Sequence[tuple[bytes, bytes]]]
"""Asked once, when the answer is committed."""
Closing = Callable[[], None]
"""Told once, right before the last of a complete answer is written."""
HandOver = Callable[[list[Collected], Counts, bytes], Awaitable[None]]


class Answer(Protocol):
    """One attempt's output on its way to the client."""

    async def put(self, choice: int, output: Output) -> None:
        """More output of a choice."""
        ...

    async def end(self, counts: Counts) -> None:
        """All choices have ended."""
        ...


class Sink(Protocol):
    """Takes one answer, or one error. ``status`` is 0 until a status line was written. ``quiet`` is
    set to true by who watches the stream, and false again with each event."""

    quiet: bool

    @property
    def status(self) -> int: ...

    @property
    def committed(self) -> bool:
        """Whether the client has been sent anything of an answer, or an error."""
        ...

    def begin(
        self, writer: Writer, choices: int, stream: bool, headers: Headers, closing: Closing
    ) -> Answer:
        """An answer of so many choices, as an event stream or whole."""
        ...

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An error: as a response, or as the last event of a stream that is open."""
        ...

    def keep_open(self, headers: Headers) -> None:
        """Open an event stream if it is not open yet, and write a line that clients skip. Only for
        requests that asked for an event stream."""
        ...


class HttpSink:
    """Writes to an HTTP client. Created before anything is known of the request but its dialect,
    so that every error has a way out.

    ``flowing``: the answer has begun, and nothing else is being written, so that its next event can
    be.
    """

    def __init__(self, send: http.Send, dialect: Dialect) -> None:
        self.send = send
        self._dialect = dialect
        self.status = 0
        self.committed = False
        self.flowing = False
        self.quiet = True
        self._writer: Writer | None = None
        self._line: asyncio.Task[None] | None = None

    def begin(
        self, writer: Writer, choices: int, stream: bool, headers: Headers, closing: Closing
    ) -> Answer:
        if stream:
            return _StreamedAnswer(self, writer, headers, closing)

        async def hand_over(made: list[Collected], counts: Counts, body: bytes) -> None:
            self.status, self.committed = 200, True
            closing()
            await http.send_bytes(self.send, 200, body, [http.JSON, *headers()])

        return _CollectedAnswer(writer, choices, hand_over)

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        await self._line_written()
        if self._writer is not None:
            await self._end(self._writer.error_event(error))
        elif not self.status:
            self.status, self.committed = error.status, True
            await http.send_error(self.send, error, self._dialect.error_body(error), headers)
        elif not self.committed:
            self.committed = True
            await self._end(self._dialect.error_event(error))

    def keep_open(self, headers: Headers) -> None:
        if self._line is None or self._line.done():
            self.flowing = False
            self._line = asyncio.get_running_loop().create_task(self._write_line(headers))

    async def flow(self, writer: Writer, headers: Headers) -> None:
        """Begin the answer that ``writer`` writes, or let it go on behind a line."""
        await self._line_written()
        if not self.committed:
            self.committed, self._writer = True, writer
            if not self.status:
                await self._open(headers)
        self.flowing = True

    async def _write_line(self, headers: Headers) -> None:
        if not self.status:
            await self._open(headers)
        line = self._dialect.keep_alive
        await self.send({"type": "http.response.body", "body": line, "more_body": True})

    async def _line_written(self) -> None:
        if self._line is not None:
            await self._line
            self._line = None

    async def _open(self, headers: Headers) -> None:
        self.status = 200
        await http.start(self.send, 200, [*http.EVENT_STREAM, *headers()])

    async def _end(self, event: bytes) -> None:
        await self.send({"type": "http.response.body", "body": event, "more_body": False})


class _StreamedAnswer:
    """Server-sent events."""

    def __init__(self, sink: HttpSink, writer: Writer, headers: Headers, closing: Closing) -> None:
        self._sink = sink
        self._writer = writer
        self._headers = headers
        self._closing = closing

    async def put(self, choice: int, output: Output) -> None:
        event = self._writer.event(choice, output)
        if not event:
            return
        sink = self._sink
        if not sink.flowing:
            await sink.flow(self._writer, self._headers)
        sink.quiet = False
        await sink.send({"type": "http.response.body", "body": event, "more_body": True})

    async def end(self, counts: Counts) -> None:
        sink = self._sink
        if not sink.flowing:
            await sink.flow(self._writer, self._headers)
        event = self._writer.last_event(counts)
        self._closing()
        await sink.send({"type": "http.response.body", "body": event, "more_body": False})


class _CollectedAnswer:
    """Put together first, and handed over whole: the choices, their counts, the body that a client
    gets."""

    def __init__(self, writer: Writer, choices: int, hand_over: HandOver) -> None:
        self._writer = writer
        self._choices = [Collected() for _ in range(choices)]
        self._hand_over = hand_over

    async def put(self, choice: int, output: Output) -> None:
        self._choices[choice].add(output)

    async def end(self, counts: Counts) -> None:
        body = self._writer.whole(self._choices, counts)
        await self._hand_over(self._choices, counts, body)


class MemorySink:
    """Keeps the answer for a caller in this process: ``choices`` as they were generated, ``body``
    as a client would have got it, or ``error``."""

    def __init__(self) -> None:
        self.status = 0
        self.quiet = True
        self.headers: dict[bytes, bytes] = {}
        self.choices: list[Collected] = []
        self.counts = Counts()
        self.body = b""
        self.error: WeirError | None = None

    @property
    def committed(self) -> bool:
        return self.status != 0

    def begin(
        self, writer: Writer, choices: int, stream: bool, headers: Headers, closing: Closing
    ) -> Answer:
        async def hand_over(made: list[Collected], counts: Counts, body: bytes) -> None:
            closing()
            self.status, self.choices, self.counts, self.body = 200, made, counts, body
            self.headers = dict(headers())

        return _CollectedAnswer(writer, choices, hand_over)

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status = self.status or error.status
        self.error = error
        self.headers |= dict(headers)

    def keep_open(self, headers: Headers) -> None:
        """Nobody's connection is to be kept open."""
