"""A replica without a model: keeps the rhythm of one, for measuring everything around it.

``engine.mode: stub`` puts it in a model's place. Every request gets its ``max_tokens`` words, one
every ``interval_ms`` (an engine argument), over the real replica protocol.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray

from deployments import wire
from deployments.autoscaling import ONGOING
from deployments.listener import Listener, ReplicaApp
from deployments.streams import Abort, Put, TokenStreams
from weir.logs import configure_logging
from weir.settings import ModelSettings
from weir.settings.tree import LogSettings

_WORD = "word "


class StubGenerator:
    """Emits words on the clock; ``interval_s`` of 0 emits all at once."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._running = 0

    def load(self) -> wire.Load:
        """Nothing ever waits and no KV cache is used."""
        return wire.Load(self._running, 0, 0)

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """Never refuses."""
        task = asyncio.get_running_loop().create_task(self._emit(request, put))

        async def abort() -> None:
            task.cancel()

        return abort

    async def _emit(self, request: wire.Submit, put: Put) -> None:
        count = request.sampling.max_tokens
        clock = asyncio.get_running_loop().time
        started = clock()
        self._running += 1
        try:
            for number in range(1, count + 1):
                # Against the clock, not after the last word: sleeping late must not add up.
                await asyncio.sleep(max(0.0, started + number * self._interval_s - clock()))
                if number < count:
                    put(wire.Chunk(request.stream, _WORD, [1]))
            prompt = len(request.prompt)
            put(wire.Done(request.stream, _WORD, [1], "length", prompt, 0, count))
        finally:
            self._running -= 1


class StubReplica:
    """The Serve deployment; stands where :class:`~deployments.replica.ModelReplica` would."""

    async def __init__(  # type: ignore[misc]  # Serve awaits constructors
        self, model: ModelSettings, log: LogSettings
    ) -> None:
        configure_logging(log)
        self._args: dict[str, Any] = model.engine.args
        self._streams = TokenStreams(StubGenerator(self._args.get("interval_ms", 5) / 1000))
        token = os.environ.get("WEIR_INTERNAL_TOKEN", "")
        self._app = ReplicaApp(_no_openai, self._streams, token)
        self._listener = Listener(self._app, ray.util.get_node_ip_address())
        await self._listener.start()
        telling = self._streams.tell_load_forever()
        self._load_task = asyncio.get_running_loop().create_task(telling)

    async def record_replica_metadata(self) -> dict[str, Any]:
        """The same keys as a model replica's."""
        return {
            "address": self._listener.address,
            "block_size": 16,
            "kv_blocks_total": 0,
            "max_model_len": int(self._args.get("max_model_len", 2048)),
            "max_num_seqs": 1024,
            "tasks": ["generate"],
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The same figure as a model replica's."""
        return {ONGOING: float(self._app.in_flight)}

    async def __del__(self) -> None:
        self._load_task.cancel()
        await self._listener.stop()


async def _no_openai(scope: dict[str, Any], receive: Any, send: Any) -> None:
    known = scope["path"] in ("/health", "/metrics")
    status = 200 if known else 501
    body = b"" if known else b'{"error": {"message": "a stub has no OpenAI server"}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
