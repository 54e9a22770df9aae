"""The gateway's side of the connections to replicas: one WebSocket each, many streams."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable

import aiohttp
from msgspec import MsgspecError

from deployments import wire
from weir.errors import BadRequestError, OverloadedError, ReplicaFailedError, WeirError

_LOG = logging.getLogger("weir.gateway")
_CONNECT_TIMEOUT_S = 5.0
_HEARTBEAT_S = 10.0

Output = wire.Chunk | wire.Done


class TokenStream:
    """One request's output as it arrives. Iterate with :meth:`next`; the last item is a Done."""

    __slots__ = ("_connection", "_failure", "_items", "_waiter", "finished", "number")

    def __init__(self, connection: ReplicaConnection, number: int) -> None:
        self._connection = connection
        self._items: deque[Output] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: WeirError | None = None
        self.number = number
        self.finished = False

    async def next(self) -> Output:
        """The next output; everything that has arrived meanwhile is joined into one.

        Raises:
            WeirError: the replica refused the request, failed, or went away.
        """
        while not self._items:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft() if len(self._items) == 1 else self._join()

    def close(self) -> None:
        """Nobody reads any more: the replica frees the request unless it has finished."""
        if not self.finished:
            self.finished = True
            self._connection.cancel(self.number)

    def feed(self, item: Output) -> None:
        """Called by the connection for each output."""
        self._items.append(item)
        self.finished = isinstance(item, wire.Done)
        self._notify()

    def fail(self, error: WeirError) -> None:
        """Called by the connection when the stream cannot go on."""
        self._failure = error
        self.finished = True
        self._notify()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _join(self) -> Output:
        items = list(self._items)
        self._items.clear()
        last = items[-1]
        last.text = "".join(item.text for item in items)
        last.tokens = [token for item in items for token in item.tokens]
        if isinstance(last, wire.ScoredChunk | wire.ScoredDone):
            last.logprobs = [p for item in items for p in logprobs_of(item)]
        return last


class ReplicaConnection:
    """A connection to one replica. Broken is broken: a new one is opened for the next request.

    ``on_load`` hears how busy the replica says it is, ``on_step`` that its engine ended a step.
    """

    def __init__(
        self,
        replica_id: str,
        address: str,
        on_load: Callable[[str, wire.Load], None],
        on_step: Callable[[str], None],
    ) -> None:
        self.replica_id = replica_id
        self.address = address
        self.broken = False
        self._on_load = on_load
        self._on_step = on_step
        self._streams: dict[int, TokenStream] = {}
        self._numbers = itertools.count(1)
        self._outbox: list[wire.ToReplica] = []
        self._wake = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, session: aiohttp.ClientSession, token: str) -> None:
        """Connect.

        Raises:
            ReplicaFailedError: the replica does not answer.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                self._socket = await session.ws_connect(
                    f"http://{self.address}{wire.PATH}",
                    headers={wire.TOKEN_HEADER: token},
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=0,
                    autoping=True,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.broken = True
            raise ReplicaFailedError(
                f"The replica at {self.address} does not answer: {error}"
            ) from error
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._write())]

    def submit(self, request: Callable[[int], wire.Submit]) -> TokenStream:
        """Start a stream; ``request`` is given the stream's number."""
        if self.broken:
            raise ReplicaFailedError(f"The connection to replica {self.replica_id} is gone.")
        stream = TokenStream(self, next(self._numbers))
        self._streams[stream.number] = stream
        self._tell(request(stream.number))
        return stream

    def cancel(self, number: int) -> None:
        """Forget a stream and have the replica free it."""
        if self._streams.pop(number, None) is not None and not self.broken:
            self._tell(wire.Cancel(number))

    async def close(self) -> None:
        """Close the socket; streams that are left fail."""
        self._break("the gateway closed the connection")
        if self._socket is not None:
            await self._socket.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell(self, message: wire.ToReplica) -> None:
        self._outbox.append(message)
        self._wake.set()

    async def _write(self) -> None:
        assert self._socket is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outbox = self._outbox, []
            for message in batch:
                with contextlib.suppress(ConnectionError):  # the reader reports it
                    await self._socket.send_bytes(wire.encode(message))

    async def _read(self) -> None:
        assert self._socket is not None
        reason = "the replica closed the connection"
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._dispatch(message.data)
        except (aiohttp.ClientError, OSError, MsgspecError) as error:
            reason = str(error) or type(error).__name__
        finally:
            self._break(reason)

    def _dispatch(self, data: bytes) -> None:
        stepped = False  # one message holds what one engine step put out
        for event in wire.decode_from_replica(data):
            if isinstance(event, wire.Load):
                self._on_load(self.replica_id, event)
                continue
            if not stepped and isinstance(event, wire.Chunk | wire.Done):
                # First, because tokens may make room for the next dispatch.
                stepped = True
                self._on_step(self.replica_id)
            stream = self._streams.get(event.stream)
            if stream is None:
                continue  # cancelled here while the output was on its way
            if not isinstance(event, wire.Chunk):
                del self._streams[event.stream]
            if isinstance(event, wire.Failed):
                stream.fail(_failure(event))
            else:
                stream.feed(event)

    def _break(self, reason: str) -> None:
        if self.broken:
            return
        self.broken = True
        streams, self._streams = list(self._streams.values()), {}
        if streams:
            _LOG.warning(
                "replica lost", extra={"replica": self.replica_id, "streams": len(streams)}
            )
        for stream in streams:
            stream.fail(ReplicaFailedError(f"The replica failed during the request: {reason}."))


class ReplicaConnections:
    """All connections of a gateway, opened when first needed and kept."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        token: str,
        on_load: Callable[[str, wire.Load], None],
        on_step: Callable[[str], None],
    ) -> None:
        self._session = session
        self._token = token
        self._on_load = on_load
        self._on_step = on_step
        self._open: dict[str, ReplicaConnection] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    async def get(self, replica_id: str, address: str) -> ReplicaConnection:
        """The connection to a replica, opened if there is none or it broke.

        Raises:
            ReplicaFailedError: the replica does not answer.
        """
        connection = self._open.get(replica_id)
        if connection is not None and not connection.broken:
            return connection
        async with self._opening.setdefault(replica_id, asyncio.Lock()):
            connection = self._open.get(replica_id)
            if connection is None or connection.broken:
                connection = ReplicaConnection(replica_id, address, self._on_load, self._on_step)
                await connection.open(self._session, self._token)
                self._open[replica_id] = connection
        return connection

    async def keep_only(self, replica_ids: set[str]) -> None:
        """Close connections to replicas that are gone and have no streams left."""
        for gone in self._open.keys() - replica_ids:
            if self._open[gone].broken or not self._open[gone]._streams:
                await self._open.pop(gone).close()
                self._opening.pop(gone, None)

    async def close(self) -> None:
        """Close all."""
        await asyncio.gather(*(c.close() for c in self._open.values()))
        self._open.clear()


def logprobs_of(output: Output) -> list[float]:
    """Its tokens' log-probabilities; empty where they were not asked for."""
    return output.logprobs if isinstance(output, wire.ScoredChunk | wire.ScoredDone) else []


def _failure(event: wire.Failed) -> WeirError:
    if event.status == 400:
        return BadRequestError(event.message)
    if event.status == 503:
        return OverloadedError(event.message)
    return ReplicaFailedError(event.message)
