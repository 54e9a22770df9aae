"""A replica's generator that is watched: it says where each request is, and waits there if told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from deployments import wire
from deployments.streams import Abort, Put
from load_tests.pdfaults.moments import Point

#: So many tokens into an answer is the middle of it.
MIDDLE_TOKENS = 4
Reached = Callable[[Point, str], Awaitable[None]]


async def _unwatched(point: Point, request_id: str) -> None:
    """Nobody waits for anything."""


async def _nothing() -> None:
    """Ends what was never begun."""


def _points(request: wire.Submit) -> tuple[Point, Point] | None:
    """Where the request is when it is asked for, and when the engine has been told."""
    if isinstance(request.handoff, wire.Keep):
        return Point.KEEP, Point.KEEP_BEGUN
    return (Point.TAKE, Point.TAKE_BEGUN) if request.handoff is not None else None


class WatchedGenerator:
    """See :class:`deployments.streams.Generator`. ``reached`` is told the point and the request's
    id; what is asked for, and what is kept, goes on when it returns."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.reached: Reached = _unwatched
        #: Its process has ended: what was held is not asked any more.
        self.dead = False
        self._telling: set[asyncio.Task[None]] = set()

    def load(self) -> wire.Load:
        """See the protocol."""
        load: wire.Load = self.generator.load()
        return load

    def adapters(self) -> wire.Adapters | None:
        """See the protocol."""
        adapters: wire.Adapters | None = self.generator.adapters()
        return adapters

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """See the protocol."""
        abort: Abort = await self.generator.embed(request, put)
        return abort

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """See the protocol."""
        points = _points(request)
        if points is not None:
            await self.reached(points[0], request.request_id)
        if self.dead:
            return _nothing
        tokens = 0

        def told(message: wire.OfStream) -> None:
            nonlocal tokens
            if isinstance(message, wire.Kept):
                self._soon(lambda: self._kept(message, request.request_id, put))
                return
            before = tokens
            tokens += len(getattr(message, "tokens", ()))
            put(message)
            if before < MIDDLE_TOKENS <= tokens and isinstance(request.handoff, wire.Take):
                self._soon(lambda: self.reached(Point.DECODE, request.request_id))

        abort: Abort = await self.generator.submit(request, told)
        if points is not None:
            begun = points[1]
            self._soon(lambda: self.reached(begun, request.request_id))
        return abort

    async def _kept(self, message: wire.Kept, request_id: str, put: Put) -> None:
        await self.reached(Point.KEPT, request_id)
        put(message)

    def _soon(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(run())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
