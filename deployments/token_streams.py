"""The replica's lean front end: token ids in, text and token ids out, many streams a socket.

vLLM's OpenAI server spends about 0.75 ms per request and 48 µs per streamed token on parsing,
templating and JSON. Here the gateway has done all that, so a stream costs the engine's own work
and a few microseconds: outputs of one engine step, whatever stream they belong to, leave in one
message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from msgspec import MsgspecError
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments import wire

Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]

_LOG = logging.getLogger("weir.replica")
_OVERRIDABLE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


class TokenStreams:
    """Serves :data:`wire.PATH`. ``load`` says what the engine last reported of itself."""

    def __init__(self, client: AsyncLLM, load: Callable[[], wire.Load]) -> None:
        self._client = client
        self._load = load
        self._defaults: dict[str, Any] = client.model_config.get_diff_sampling_param()
        self._connections: set[_Connection] = set()

    @property
    def in_flight(self) -> int:
        """Streams being generated, over all gateways."""
        return sum(len(c.streams) for c in self._connections)

    async def serve(self, receive: Receive, send: Send) -> None:
        """One gateway's connection, from accept to close; whatever is left is aborted."""
        await receive()
        await send({"type": "websocket.accept"})
        connection = _Connection(self._client, self._defaults, send)
        self._connections.add(connection)
        try:
            connection.tell(self._load())
            await connection.run(receive)
        finally:
            self._connections.discard(connection)
            await connection.abort_all()

    def tell_load(self) -> None:
        """Send the engine's load to every gateway."""
        load = self._load()
        for connection in self._connections:
            connection.tell(load)


class _Stream:
    """One request in the engine. ``engine_id`` is vLLM's internal name for it."""

    __slots__ = ("cached_tokens", "engine_id", "number", "output_tokens", "prompt_tokens")

    def __init__(self, number: int, prompt_tokens: int) -> None:
        self.number = number
        self.prompt_tokens = prompt_tokens
        self.engine_id = ""
        self.cached_tokens = 0
        self.output_tokens = 0


class _Connection:
    """One WebSocket: reads submissions and cancellations, writes what the engine puts out."""

    def __init__(self, client: AsyncLLM, defaults: dict[str, Any], send: Send) -> None:
        self._client = client
        self._defaults = defaults
        self._send = send
        self._outbox: list[wire.FromReplica] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.streams: dict[int, _Stream] = {}

    def tell(self, message: wire.FromReplica) -> None:
        """Queue a message; everything queued in one turn of the loop leaves together."""
        self._outbox.append(message)
        self._wake.set()

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
        for task in self._tasks:
            task.cancel()
        ids = [s.engine_id for s in self.streams.values() if s.engine_id]
        self.streams.clear()
        if ids:
            await self._client.abort(ids, internal=True)

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
        if isinstance(message, wire.Cancel):
            self._spawn(self._cancel(message.stream))
        else:
            self._spawn(self._submit(message))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel(self, number: int) -> None:
        stream = self.streams.pop(number, None)
        if stream is not None and stream.engine_id:
            await self._client.abort(stream.engine_id, internal=True)

    async def _submit(self, message: wire.Submit) -> None:
        stream = _Stream(message.stream, len(message.prompt))
        self.streams[message.stream] = stream
        try:
            collector = await self._client.add_request(
                message.request_id,
                tokens_input(message.prompt, cache_salt=message.cache_salt),
                sampling_params(message.sampling, self._defaults),
                priority=message.priority,
            )
        except (ValueError, VLLMClientError) as error:
            self._fail(stream, 400, str(error))
            return
        except EngineDeadError as error:
            self._fail(stream, 503, str(error) or "the engine is down")
            return
        except Exception as error:  # noqa: BLE001 - one request must not end the connection
            _LOG.exception("a request could not be started")
            self._fail(stream, 500, f"{type(error).__name__}: {error}")
            return
        stream.engine_id = collector.request_id
        if message.stream not in self.streams:  # cancelled while it was being added
            await self._client.abort(collector.request_id, internal=True)
            return
        waiting = collector.get_nowait()
        # vLLM hands outputs over by put(); taking the call itself saves a task per stream and a
        # wake-up per token.
        collector.put = lambda output: self._put(stream, output)
        if waiting is not None:
            self._put(stream, waiting)

    def _fail(self, stream: _Stream, status: int, message: str) -> None:
        if self.streams.pop(stream.number, None) is not None:
            self.tell(wire.Failed(stream.number, status, message))

    def _put(self, stream: _Stream, output: Any) -> None:
        if stream.number not in self.streams:
            return
        if isinstance(output, Exception):
            self._fail(stream, 503, str(output) or type(output).__name__)
            return
        completion = output.outputs[0] if output.outputs else None
        text = completion.text if completion else ""
        tokens = list(completion.token_ids) if completion else []
        stream.output_tokens += len(tokens)
        if output.num_cached_tokens:
            stream.cached_tokens = output.num_cached_tokens
        if not output.finished:
            self.tell(wire.Chunk(stream.number, text, tokens))
            return
        del self.streams[stream.number]
        reason = (completion.finish_reason if completion else None) or "abort"
        self.tell(
            wire.Done(
                stream.number,
                text,
                tokens,
                reason,
                stream.prompt_tokens,
                stream.cached_tokens,
                stream.output_tokens,
            )
        )


def sampling_params(sampling: wire.Sampling, defaults: dict[str, Any]) -> SamplingParams:
    """vLLM's parameters: what the request says, else the model's own defaults."""
    chosen = {
        name: value if value is not None else defaults.get(name)
        for name in _OVERRIDABLE
        if (value := getattr(sampling, name)) is not None or name in defaults
    }
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        seed=sampling.seed,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        skip_special_tokens=sampling.skip_special_tokens,
        include_stop_str_in_output=sampling.include_stop_str_in_output,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
        **chosen,
    )
