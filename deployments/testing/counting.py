"""A generator that knows what it did: what every request should be billed, and what went wrong.

It wraps the stub (:mod:`deployments.stub_generator`), whose answers are a pure function of their
prompt, and adds what an engine has besides: a prefix cache, counters, blocks that it keeps for
other engines, and ways to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments import wire
from deployments.streams import Abort, Put
from deployments.stub_generator import StubGenerator
from deployments.testing.kept import KeptBlocks

BLOCK_TOKENS = 4
_Block = tuple[str | None, str | None, tuple[int, ...]]


@dataclass(slots=True)
class Served:
    """One stream that an engine generated, whole or in part. Counts are in tokens.

    ``begun`` is how many tokens of the answer other engines had generated before; ``prefilled``:
    the prompt was computed here; ``ended``: the last output was put out here.
    """

    request: wire.Submit | wire.Embed
    prompt_tokens: int
    cached_tokens: int = 0
    output_tokens: int = 0
    begun: int = 0
    prefilled: bool = False
    ended: bool = False

    @property
    def request_id(self) -> str:
        return self.request.request_id


@dataclass(slots=True)
class Meter:
    """What engines have done. It outlives them: a replica that is started again goes on here."""

    streams: list[Served] = field(default_factory=list)

    def of(self, request_id: str) -> list[Served]:
        """A request's streams, of all its choices, in the order in which they were started."""
        own = (request_id, *(f"{request_id}-{i}" for i in range(64)))
        return [stream for stream in self.streams if stream.request_id in own]


class CountingGenerator:
    """See :class:`deployments.streams.Generator`; one token a stream every ``interval_s``.

    ``refuse`` is raised instead of starting a request. ``meter`` may be shared with other
    generators; ``kept`` is, with those that it hands prompts to.
    """

    def __init__(
        self, interval_s: float, meter: Meter | None = None, kept: KeptBlocks | None = None
    ) -> None:
        self.meter = meter or Meter()
        self.kept = kept or KeptBlocks()
        self.refuse: Exception | None = None
        self._interval_s = interval_s
        self._stub = StubGenerator(interval_s)
        self._going = asyncio.Event()
        self._going.set()
        self._open: dict[int, Served] = {}
        self._blocks: set[_Block] = set()
        self._fetching = 0
        self._empty_steps = 0

    @property
    def running(self) -> int:
        """Streams that are being generated here."""
        return len(self._open)

    def load(self) -> wire.Load:
        """See the protocol. While it waits for another engine's blocks, an engine steps without
        pause, as vLLM's does."""
        if self._fetching and self._going.is_set():
            self._empty_steps += 1
        load = self._stub.load()
        return msgspec.structs.replace(load, steps=load.steps + self._empty_steps)

    def adapters(self) -> wire.Adapters | None:
        """See the protocol."""
        return self._stub.adapters()

    def freeze(self) -> None:
        """Make no step until :meth:`thaw`."""
        self._stub.freeze()
        self._going.clear()

    def thaw(self) -> None:
        """Go on."""
        self._stub.thaw()
        self._going.set()

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """See the protocol."""
        return await self._start(request, put, self._stub.submit)

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """See the protocol."""
        return await self._start(request, put, self._embed)

    async def _embed(self, request: wire.Embed, put: Put) -> Abort:
        async def work() -> None:
            await asyncio.sleep(self._interval_s)
            await self._going.wait()
            await self._stub.embed(request, put)

        task = asyncio.get_running_loop().create_task(work())

        async def abort() -> None:
            if not task.done():
                task.cancel()
                put(wire.Used(request.stream, 0, 0, 0))

        return abort

    async def _start(self, request: Any, put: Put, start: Any) -> Abort:
        if self.refuse is not None:
            raise self.refuse
        taken = await self._taken(request)
        resume = getattr(request, "resume", None)
        begun = len(resume.tokens) if resume else 0
        cached = len(request.prompt) if taken else self._cached(request)
        served = Served(request, len(request.prompt), cached, begun=begun)
        self.meter.streams.append(served)
        self._open[id(served)] = served

        def count(message: wire.OfStream) -> None:
            put(self._counted(served, message))

        abort: Abort = await start(request, count)

        async def end() -> None:
            self._open.pop(id(served), None)
            await abort()

        return end

    async def _taken(self, request: wire.Submit | wire.Embed) -> bool:
        """Whether another engine's blocks of the prompt have come."""
        handoff = getattr(request, "handoff", None)
        if not isinstance(handoff, wire.Take):
            return False
        self._fetching += 1
        try:
            return await self.kept.take(handoff.blocks)
        finally:
            self._fetching -= 1

    def _counted(self, served: Served, message: Any) -> wire.OfStream:
        """The message with the prefix cache's share in it; what it says is counted."""
        if isinstance(message, wire.Chunk | wire.Done):
            served.output_tokens += len(message.tokens)
        if isinstance(message, wire.Started | wire.Done | wire.Embedded):
            served.prompt_tokens = message.prompt_tokens
            served.prefilled = True
            message.cached_tokens = served.cached_tokens
            self._blocks.update(_blocks(served.request))
        if isinstance(message, wire.Used) and message.prompt_tokens:
            message.cached_tokens = served.cached_tokens
        if isinstance(message, wire.Kept):
            message.blocks = self.kept.keep(self, self._going.wait)
        if isinstance(message, wire.Done | wire.Embedded | wire.Failed):
            served.ended = not isinstance(message, wire.Failed)
            self._open.pop(id(served), None)
        return message  # type: ignore[no-any-return]

    def _cached(self, request: wire.Submit | wire.Embed) -> int:
        """Leading tokens of the prompt that an earlier one left here; the last one is computed in
        any case, as engines do."""
        held = 0
        for block in _blocks(request):
            if block not in self._blocks:
                break
            held += BLOCK_TOKENS
        return max(0, min(held, len(request.prompt) - 1))


def _blocks(request: wire.Submit | wire.Embed) -> Iterable[_Block]:
    """The prompt's full blocks, each with everything before it; tenants and adapters share none."""
    prompt, adapter = request.prompt, getattr(request, "adapter", None)
    for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
        yield request.cache_salt, adapter and adapter.key, tuple(prompt[:end])
