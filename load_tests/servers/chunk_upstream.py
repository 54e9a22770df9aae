"""An upstream that only emits chunks: what a gateway costs, with no engine behind it.

``python -m load_tests.servers.chunk_upstream --port P``. It answers ``/v1/chat/completions`` with
``max_tokens`` events at ``--interval-ms`` intervals, the first after one interval, then usage and
``[DONE]``; and what routers ask a worker at start-up. Raw asyncio, so that it is not the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import cast

import httptools
import uvloop

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def event(payload: str) -> bytes:
    """One SSE event as one HTTP chunk."""
    data = f"data: {payload}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkAnswers:
    """The bytes of an answer, made once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.role = self._delta({"role": "assistant", "content": ""})
        self.text = self._delta({"content": " word"})
        self.stop = self._delta({}, "length")
        models = [{"id": model, "object": "model", "created": 0, "owned_by": "weir"}]
        self.facts = {
            b"/v1/models": {"object": "list", "data": models},
            b"/get_model_info": {"model_path": model, "is_generation": True},
            b"/model_info": {"model_path": model, "is_generation": True},
            b"/get_server_info": {"model_path": model, "served_model_name": model},
            b"/server_info": {"model_path": model, "served_model_name": model},
            b"/health": {},
            b"/health_generate": {},
        }

    def end(self, prompt_tokens: int, output_tokens: int) -> bytes:
        """Usage, ``[DONE]`` and the end of the body."""
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
        }
        tail = event(json.dumps(self._chunk([]) | {"usage": usage}, separators=(",", ":")))
        return self.stop + tail + event("[DONE]") + b"0\r\n\r\n"

    def _chunk(self, choices: list[object]) -> dict[str, object]:
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self._model,
            "choices": choices,
        }

    def _delta(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event(json.dumps(self._chunk([choice]), separators=(",", ":")))


class ChunkProtocol(asyncio.Protocol):
    """One client connection; one answer at a time, as HTTP/1.1 keep-alive has it."""

    def __init__(self, answers: ChunkAnswers, interval_s: float) -> None:
        self._answers = answers
        self._interval_s = interval_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: stop emitting."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """A new request."""
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        """The request's target."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        path = self._url.partition(b"?")[0]
        if path == b"/v1/chat/completions":
            self._stream()
        elif path in self._answers.facts:
            self._plain(b"200 OK", json.dumps(self._answers.facts[path]).encode())
        else:
            self._plain(b"404 Not Found", b"{}")

    def _plain(self, status: bytes, body: bytes) -> None:
        if self._transport is not None:
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % (status, len(body)) + body)

    def _stream(self) -> None:
        assert self._transport is not None
        try:
            body = json.loads(self._body)
            # SGLang's router sends the newer of the two names, whatever it was given.
            wanted = int(body.get("max_completion_tokens") or body["max_tokens"])
        except (ValueError, KeyError, TypeError, AttributeError):
            self._plain(b"400 Bad Request", b'{"error":{"message":"max_tokens is missing"}}')
            return
        self._transport.write(STREAM_HEAD)
        loop = asyncio.get_running_loop()
        self._schedule(loop, loop.time(), 1, wanted)

    def _schedule(
        self, loop: asyncio.AbstractEventLoop, start_s: float, number: int, wanted: int
    ) -> None:
        when_s = start_s + number * self._interval_s
        self._timer = loop.call_at(when_s, self._emit, loop, start_s, number, wanted)

    def _emit(
        self, loop: asyncio.AbstractEventLoop, start_s: float, number: int, wanted: int
    ) -> None:
        if self._transport is None:
            return
        answers = self._answers
        data = answers.role + answers.text if number == 1 else answers.text
        if number < wanted:
            self._transport.write(data)
            self._schedule(loop, start_s, number + 1, wanted)
            return
        prompt_tokens = len(self._body) // 4
        self._transport.write(data + answers.end(prompt_tokens, wanted))


async def serve(port: int, interval_s: float, model: str) -> None:
    """Serve on loopback until cancelled."""
    answers = ChunkAnswers(model)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ChunkProtocol(answers, interval_s), "127.0.0.1", port)
    await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interval-ms", type=float, default=5.0)
    parser.add_argument("--model", default="chunks")
    options = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port, options.interval_ms / 1000, options.model))


if __name__ == "__main__":
    main()
