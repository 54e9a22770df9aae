"""Where answers go. A sink is written to once a leg commits, and then to the end.

:meth:`Sink.begin` gives an attempt its own :class:`Answer`. An event stream opens with the first
output; a whole answer is collected and written at the end. Until something has been written,
``committed`` is false, the attempt can be dropped, and another one can begin: there is nothing to
undo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from deployments.gateway import http
from deployments.gateway.dialects import Dialect, Writer
from deployments.gateway.outputs import Collected, Counts, Output
from weir.errors import WeirError

Headers = Callable[[], Sequence[tuple[bytes, bytes]]]
"""Asked once, when the answer is committed."""
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
    """Takes one answer, or one error. ``status`` is 0 until something was written."""

    @property
    def status(self) -> int: ...

    @property
    def committed(self) -> bool:
        """Whether the client has been sent anything."""
        ...

    def begin(self, writer: Writer, choices: int, stream: bool, headers: Headers) -> Answer:
        """An answer of so many choices, as an event stream or whole."""
        ...

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An error: as a response, or as the last event of a stream that has begun."""
        ...


class HttpSink:
    """Writes to an HTTP client. Created before anything is known of the request but its dialect,
    so that every error has a way out."""

    def __init__(self, send: http.Send, dialect: Dialect) -> None:
        self.send = send
        self._dialect = dialect
        self.status = 0
        self.writer: Writer | None = None

    @property
    def committed(self) -> bool:
        return self.status != 0

    def begin(self, writer: Writer, choices: int, stream: bool, headers: Headers) -> Answer:
        if stream:
            return _StreamedAnswer(self, writer, headers)

        async def hand_over(made: list[Collected], counts: Counts, body: bytes) -> None:
            self.status = 200
            await http.send_bytes(self.send, 200, body, [http.JSON, *headers()])

        return _CollectedAnswer(writer, choices, hand_over)

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if self.writer is not None:
            event = self.writer.error_event(error)
            await self.send({"type": "http.response.body", "body": event, "more_body": False})
        elif not self.committed:
            self.status = error.status
            await http.send_error(self.send, error, self._dialect.error_body(error), headers)


class _StreamedAnswer:
    """Server-sent events."""

    def __init__(self, sink: HttpSink, writer: Writer, headers: Headers) -> None:
        self._sink = sink
        self._writer = writer
        self._headers = headers

    async def put(self, choice: int, output: Output) -> None:
        event = self._writer.event(choice, output)
        if not event:
            return
        if not self._sink.committed:
            await self._open()
        await self._sink.send({"type": "http.response.body", "body": event, "more_body": True})

    async def end(self, counts: Counts) -> None:
        if not self._sink.committed:
            await self._open()
        event = self._writer.last_event(counts)
        await self._sink.send({"type": "http.response.body", "body": event, "more_body": False})

    async def _open(self) -> None:
        self._sink.status = 200
        self._sink.writer = self._writer
        await http.start(self._sink.send, 200, [*http.EVENT_STREAM, *self._headers()])


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
        self.headers: dict[bytes, bytes] = {}
        self.choices: list[Collected] = []
        self.counts = Counts()
        self.body = b""
        self.error: WeirError | None = None

    @property
    def committed(self) -> bool:
        return self.status != 0

    def begin(self, writer: Writer, choices: int, stream: bool, headers: Headers) -> Answer:
        async def hand_over(made: list[Collected], counts: Counts, body: bytes) -> None:
            self.status, self.choices, self.counts, self.body = 200, made, counts, body
            self.headers = dict(headers())

        return _CollectedAnswer(writer, choices, hand_over)

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status = self.status or error.status
        self.error = error
        self.headers |= dict(headers)
