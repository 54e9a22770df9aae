"""The replica's lean front end: token ids in, text and token ids out, many streams a socket.

vLLM's OpenAI server spends about 0.75 ms per request and 48 µs per streamed token on parsing,
templating and JSON. Here the gateway has done all that, so a stream costs the engine's own work
and a few microseconds: outputs of one engine step, whatever stream they belong to, leave in one
message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import operator
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import MsgspecError

from deployments import wire
from deployments.roles import RoleKeeper
from deployments.unbooked import Books, Leave, Unbooked
from weir.errors import WeirError
from weir.logs import stack_of

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Put = Callable[[wire.OfStream], None]
Abort = Callable[[], Awaitable[None]]

_LOG = logging.getLogger("weir.replica")
_LOAD_PERIOD_S = 0.05
_REPEAT_LOAD_S = 1.0
#: So long after its last stream the engine may still have something to say.
_AFTERGLOW_S = 1.0


class CannotDoError(WeirError):
    """The model, or the engine that it runs in, cannot do what was asked: another replica of the
    same model cannot either."""

    status = 501
    type = "invalid_request_error"
    code = "unsupported_operation"


class Generator(Protocol):
    """Something that generates tokens: vLLM, or a stand-in that only keeps the rhythm."""

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """Start a request. Its outputs go to ``put``: a Started before the first Chunk, and a Done
        (of a prompt to keep: a Kept) or a Failed as the last one, with a Used right before it. One
        that is ended early puts out its Used then.

        Returns what ends it early and frees it.

        Raises:
            WeirError: the request cannot be started.
        """
        ...

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """Start to embed; the one output is an Embedded or a Failed. Otherwise like submit."""
        ...

    def load(self) -> wire.Load:
        """How busy it is."""
        ...

    def adapters(self) -> wire.Adapters | None:
        """Its LoRA adapters; None for a model that has none."""
        ...


class TokenStreams:
    """Serves :data:`wire.PATH` for any number of gateways. ``roles``: what the replica is for;
    ``leave``: where it leaves what no gateway books."""

    def __init__(
        self,
        generator: Generator,
        roles: RoleKeeper | None = None,
        leave: Leave | None = None,
    ) -> None:
        self._generator = generator
        self.unbooked = Unbooked(lambda: asyncio.get_running_loop().time(), leave)
        self.roles = roles or RoleKeeper()
        self.roles.changed = self._stir
        self._stirred = asyncio.Event()
        self._worked_s = -math.inf
        self._connections: set[_Connection] = set()
        self._draining = False
        self._interrupted = False

    @property
    def in_flight(self) -> int:
        """Streams being generated, over all gateways."""
        return sum(connection.in_flight for connection in self._connections)

    async def serve(self, receive: Receive, send: Send) -> None:
        """One gateway's connection, from accept to close; whatever is left is aborted."""
        await receive()
        await send({"type": "websocket.accept"})
        connection = _Connection(self._generator, send, Books(self.unbooked), self._stir)
        self._connections.add(connection)
        try:
            self.tell_load(asyncio.get_running_loop().time())
            self.unbooked.joined(connection)
            await connection.run(receive)
        finally:
            self._connections.discard(connection)
            self.unbooked.left(connection)
            await connection.abort_all()

    @property
    def interrupted(self) -> bool:
        """Whether the machine is about to be taken away."""
        return self._interrupted

    def interrupt(self) -> None:
        """The machine is about to be taken away: every gateway is told at once, so that streams go
        on elsewhere."""
        self._interrupted = self._draining = True
        self.tell_load(asyncio.get_running_loop().time())

    async def drain(self, timeout_s: float) -> None:
        """Tell every gateway at once that the replica is going away, so that they move long streams
        to others; then wait for what is left, at most ``timeout_s``."""
        self._draining = True
        self.tell_load(asyncio.get_running_loop().time())
        if self.in_flight:
            _LOG.info("draining", extra={"in_flight": self.in_flight})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.in_flight:  # noqa: ASYNC110 - a sum over connections, without an event
                    await asyncio.sleep(_LOAD_PERIOD_S)
        if self.in_flight:
            _LOG.warning("stopped with streams in flight", extra={"in_flight": self.in_flight})

    async def close(self) -> None:
        """Nobody is connected any more: end what is left, and leave what no gateway has booked."""
        for connection in list(self._connections):
            self.unbooked.left(connection)
            await connection.abort_all()
        self.unbooked.sweep(everything=True)

    async def tell_load_forever(self) -> None:
        """Tell every gateway how busy the replica is, whenever that has changed. While nothing is
        asked of it, that is only looked at once a second.

        This is how gateways learn of each other's work: the replica is the one place that sees
        all of it, and says to each what the others have in flight here.
        """
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOAD_PERIOD_S)
            self.tell_load(clock())
            self.unbooked.sweep()
            if self.in_flight:
                self._worked_s = clock()
            elif clock() - self._worked_s > _AFTERGLOW_S:
                await self._rest()

    def _stir(self) -> None:
        """There is something to do."""
        self._worked_s = asyncio.get_running_loop().time()
        self._stirred.set()

    async def _rest(self) -> None:
        """Until there is something to do, or gateways have to hear again that there is nothing."""
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPEAT_LOAD_S):
                await self._stirred.wait()

    def tell_load(self, now_s: float) -> None:
        """Send its load to each gateway that does not know it, or has not heard for a second."""
        load, adapters = self._generator.load(), self._generator.adapters()
        temporary = self.roles.now(now_s)
        total = _sum(connection.work() for connection in self._connections)
        for connection in self._connections:
            requests, prefill, decode, context = map(operator.sub, total, connection.work())
            told = wire.Load(
                load.running,
                load.waiting,
                load.kv_blocks_used,
                elsewhere_requests=requests,
                elsewhere_prefill_tokens=prefill,
                elsewhere_decode_tokens=decode,
                elsewhere_context_tokens=context,
                steps=load.steps,
                draining=self._draining,
                mfu=load.mfu,
                mbu=load.mbu,
                tiers=load.tiers,
                role="" if temporary is None else temporary.role,
                role_until=None if temporary is None else temporary.until,
                busy_s=load.busy_s,
                prefill_tokens=load.prefill_tokens,
                decode_tokens=load.decode_tokens,
                interrupted=self._interrupted,
                preparing=connection.preparing,
            )
            connection.tell_load(told, now_s)
            if adapters is not None:
                connection.tell_adapters(adapters)


@dataclass(slots=True)
class _Stream:
    """One request being generated; ``abort`` is None until it has started."""

    prefill_tokens: int
    decode_tokens: int
    context_tokens: int
    abort: Abort | None = None

    @classmethod
    def of(cls, request: wire.Submit | wire.Embed) -> _Stream:
        """The work that ``request`` brings. Tokens to resume from are prefilled like the prompt;
        what is not text counts once it has been rendered (:meth:`prefilled`); what another replica
        has computed is no work here."""
        prompt = len(request.prompt)
        if isinstance(request, wire.Embed):
            return cls(prompt, 0, prompt)
        if isinstance(request.handoff, wire.Take):
            return cls(0, min(request.sampling.max_tokens, wire.USUAL_OUTPUT_TOKENS), prompt)
        resumed = len(request.resume.tokens) if request.resume else 0
        left = max(0, request.sampling.max_tokens - resumed)
        usual = min(left, wire.USUAL_OUTPUT_TOKENS)
        return cls(prompt + resumed, usual, prompt + resumed)

    def prefilled(self, prompt_tokens: int) -> None:
        """The prompt has been prefilled; it may have been rendered here."""
        self.prefill_tokens = 0
        self.context_tokens = max(self.context_tokens, prompt_tokens)

    def generated(self, tokens: int) -> None:
        """Count output; the first of it says that the prompt is prefilled."""
        self.prefill_tokens = 0
        self.decode_tokens = max(0, self.decode_tokens - tokens)
        self.context_tokens += tokens


Work = tuple[int, int, int, int]


def _sum(works: Iterable[Work]) -> Work:
    """Requests, prefill, decode and context tokens, each added up."""
    columns = zip(*works, strict=True)
    requests, prefill, decode, context = [sum(column) for column in columns] or (0, 0, 0, 0)
    return requests, prefill, decode, context


class _Connection:
    """One WebSocket: reads submissions and cancellations, writes what is generated."""

    def __init__(
        self, generator: Generator, send: Send, books: Books, stir: Callable[[], None]
    ) -> None:
        self._generator = generator
        self._stir = stir
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self.books = books
        self._outbox: list[wire.FromReplica] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[int, _Stream] = {}
        self._told: wire.Load | None = None
        self._told_s = 0.0
        self._told_adapters: wire.Adapters | None = None

    @property
    def in_flight(self) -> int:
        return len(self._streams)

    @property
    def preparing(self) -> int:
        """Of these, streams that the engine has not got yet."""
        return sum(stream.abort is None for stream in self._streams.values())

    def tell(self, message: wire.FromReplica) -> None:
        """Queue a message; everything queued in one turn of the loop leaves together."""
        self._outbox.append(message)
        self._wake.set()

    def tell_load(self, load: wire.Load, now_s: float) -> None:
        """Queue a load message, unless the gateway was told the same a moment ago."""
        if load != self._told or now_s - self._told_s >= _REPEAT_LOAD_S:
            self._told, self._told_s = load, now_s
            self.tell(load)

    def tell_adapters(self, adapters: wire.Adapters) -> None:
        """Queue a message about adapters, if anything about them is new."""
        if adapters != self._told_adapters:
            self._told_adapters = adapters
            self.tell(adapters)

    def work(self) -> Work:
        """What this gateway has in flight: requests, prefill, decode and context tokens."""
        streams = self._streams.values()
        return (
            len(streams),
            sum(stream.prefill_tokens for stream in streams),
            sum(stream.decode_tokens for stream in streams),
            sum(stream.context_tokens for stream in streams),
        )

    async def run(self, receive: Receive) -> None:
        """Until the gateway goes away."""
        writer = asyncio.create_task(self._write())
        try:
            while True:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    return
                self._handle(event.get("bytes") or b"")
        finally:
            writer.cancel()

    async def abort_all(self) -> None:
        """Free what the gateway can no longer read."""
        streams = list(self._streams.values())
        self._streams.clear()  # those being started find themselves gone and abort
        for stream in streams:
            if stream.abort is not None:
                await stream.abort()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outbox = self._outbox, []
            await self._send({"type": "websocket.send", "bytes": wire.encode(batch)})

    def _handle(self, data: bytes) -> None:
        try:
            message = wire.decode_to_replica(data)
        except MsgspecError as error:
            _LOG.error("a gateway sent something unreadable", extra={"reason": str(error)})
            return
        if isinstance(message, wire.Booked):
            self.books.booked(message)
        elif isinstance(message, wire.Cancel):
            stream = self._streams.pop(message.stream, None)
            if stream is not None and stream.abort is not None:
                self._spawn(stream.abort())
        else:
            self._streams[message.stream] = _Stream.of(message)
            self._stir()
            if message.origin is not None:
                self.books.open(message.stream, message.origin, self._clock())
            self._spawn(self._start(message))

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, request: wire.Submit | wire.Embed) -> None:
        number = request.stream
        try:
            if isinstance(request, wire.Embed):
                abort = await self._generator.embed(request, self._put)
            else:
                abort = await self._generator.submit(request, self._put)
        except WeirError as error:
            self.books.forget(number)
            self._put(wire.Failed(number, error.status, error.message))
        except Exception as error:  # noqa: BLE001 - one request must not end the connection
            _LOG.error("a request could not be started: %s", stack_of(error))
            self.books.forget(number)
            self._put(wire.Failed(number, 500, f"The engine failed ({type(error).__name__})."))
        else:
            stream = self._streams.get(number)
            if stream is not None:
                stream.abort = abort
            else:  # cancelled, or already at its end, while it was being started
                await abort()

    def _put(self, message: wire.OfStream) -> None:
        if isinstance(message, wire.Used):
            self.books.used(message, self._clock())
            self.tell(message)
            return
        stream = self._streams.get(message.stream)
        if stream is not None:
            if isinstance(message, wire.Chunk):
                stream.generated(len(message.tokens))
            elif isinstance(message, wire.Started):
                stream.prefilled(message.prompt_tokens)
            else:
                del self._streams[message.stream]
            self.tell(message)
