"""A generator that puts out what a test tells it to, when it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deployments import wire
from deployments.streams import Abort, Put

TOKEN = 1


@dataclass
class ScriptedGenerator:
    """``started`` and ``aborted`` hold request ids; ``refuse`` is raised instead of starting, and
    ``submitting`` waited for before. ``prefilled``: requests whose prompt was told to be done."""

    started: dict[str, Callable[[wire.OfStream], None]] = field(default_factory=dict)
    requests: dict[str, wire.Submit | wire.Embed] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    refuse: Exception | None = None
    submitting: asyncio.Event | None = None
    cached_tokens: int = 0
    loaded: wire.Adapters | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    def load(self) -> wire.Load:
        """One request runs for each that was started; seven KV blocks are in use."""
        return wire.Load(len(self.started), 0, 7)

    def adapters(self) -> wire.Adapters | None:
        """What a test says."""
        return self.loaded

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """See :class:`deployments.streams.Generator`."""
        return await self._start(request, put)

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """See :class:`deployments.streams.Generator`."""
        return await self._start(request, put)

    async def _start(self, request: wire.Submit | wire.Embed, put: Put) -> Abort:
        if self.submitting is not None:
            await self.submitting.wait()
        if self.refuse is not None:
            raise self.refuse
        self.requests[request.request_id] = request
        self.started[request.request_id] = put
        self._counts[request.request_id] = 0

        async def abort() -> None:
            self.aborted.append(request.request_id)
            self.started.pop(request.request_id, None)

        return abort

    def say(
        self, request_id: str, text: str, logprob: float | None = None, tokens: int = 1
    ) -> None:
        """A piece of output, with log-probabilities where one is given."""
        extra = None if logprob is None else wire.Extra(logprobs=_scored(text, logprob, tokens))
        self.put(request_id, text, extra, tokens)

    def put(
        self, request_id: str, text: str, extra: wire.Extra | None = None, tokens: int = 1
    ) -> None:
        """A piece of output."""
        request, put = self.requests[request_id], self.started[request_id]
        if not self._counts[request_id]:
            put(wire.Started(request.stream, len(request.prompt), self.cached_tokens))
        self._counts[request_id] += tokens
        ids = [TOKEN] * tokens
        if extra is None:
            put(wire.Chunk(request.stream, text, ids))
        else:
            put(wire.RichChunk(request.stream, text, ids, extra))

    def end(
        self,
        request_id: str,
        text: str = "",
        count: int = 1,
        extra: wire.Extra | None = None,
        reason: str = "stop",
    ) -> None:
        """The last output, after which the replica has generated ``count`` tokens in all."""
        request, put = self.requests[request_id], self.started.pop(request_id)
        ids = [TOKEN] * max(0, count - self._counts[request_id])
        counts = (len(request.prompt), self.cached_tokens, count)
        if extra is None:
            put(wire.Done(request.stream, text, ids, reason, *counts))
        else:
            put(wire.RichDone(request.stream, text, ids, reason, *counts, extra))

    def end_scored(self, request_id: str, text: str, logprob: float, count: int = 1) -> None:
        """The last output, with log-probabilities."""
        tokens = max(0, count - self._counts[request_id])
        self.end(request_id, text, count, wire.Extra(logprobs=_scored(text, logprob, tokens)))

    def embedded(self, request_id: str, vector: Sequence[float]) -> None:
        """The answer to an embedding."""
        request, put = self.requests[request_id], self.started.pop(request_id)
        put(wire.Embedded(request.stream, list(vector), len(request.prompt), self.cached_tokens))


def _scored(text: str, logprob: float, tokens: int) -> list[wire.Scored]:
    return [wire.Scored(TOKEN, text, logprob) for _ in range(tokens)]
