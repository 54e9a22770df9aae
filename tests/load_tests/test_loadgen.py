"""The load generator: what counts as a complete stream, and what it reports of a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.testing.in_memory import memory_cluster
from deployments.testing.words import word_encoder
from load_tests.loadgen import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Dialect,
    Load,
    Sample,
    Target,
    Watch,
    chat_bodies,
    figures,
    latency_figures,
    prompt_texts,
    run_load,
)
from load_tests.servers.chunk_upstream import ChunkAnswers, ChunkProtocol
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"delta":{"content":"hi \\"completion_tokens\\":9"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
USAGE = b'data: {"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
CALL = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function",'
    b'"function":{"name":"f","arguments":""}}]}}]}\n\n'
)
ARGUMENTS = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a"}}]}}]}'
    b"\n\n"
)
SCORED = (
    b'data: {"choices":[{"delta":{"content":"x"},"logprobs":{"content":[{"token":"x",'
    b'"top_logprobs":[{"token":"content"}]}]}}]}\n\n'
)
THOUGHT = b'data: {"choices":[{"delta":{"reasoning":"r","reasoning_content":"r"}}]}\n\n'
EMPTY = b'data: {"choices":[{"delta":{"content":""},"finish_reason":"length"}]}\n\n'


def watched(*parts: bytes, status: int = 200, expected: int = 2) -> Sample:
    watch = Watch(sent_s=10.0, expected_tokens=expected)
    for number, part in enumerate(parts):
        watch.body(part, 10.1 + number)
    return watch.finish(status, 20.0)


def test_a_complete_stream() -> None:
    sample = watched(ROLE, TEXT, TEXT, STOP + USAGE + DONE)
    assert sample.error is None
    assert sample.output_tokens == 2
    assert sample.prompt_tokens == 5
    assert sample.text_chunks == 2
    assert sample.reads_s == (11.1, 12.1)
    assert sample.ttft_s == pytest.approx(1.1)


def test_the_role_chunk_is_not_the_first_token_even_when_it_is_torn() -> None:
    sample = watched(ROLE[:30], ROLE[30:], TEXT[:20], TEXT[20:], STOP + USAGE + DONE)
    assert sample.reads_s[0] == 13.1


def test_tokens_without_text_are_counted_but_have_no_first_arrival() -> None:
    sample = watched(ROLE, STOP + USAGE + DONE)
    assert sample.error is None
    assert sample.ttft_s is None
    assert latency_figures([sample])["ttft_ms_p50"] is None


def test_several_chunks_in_one_read_are_all_counted() -> None:
    sample = watched(ROLE + TEXT + TEXT + STOP + USAGE + DONE)
    assert sample.text_chunks == 2
    assert len(sample.reads_s) == 1


@pytest.mark.parametrize("piece", [CALL, ARGUMENTS, SCORED, THOUGHT])
def test_pieces_of_calls_scored_text_and_reasoning_are_output(piece: bytes) -> None:
    sample = watched(ROLE, piece, piece, EMPTY, USAGE + DONE)
    assert sample.error is None
    assert sample.text_chunks == 2
    assert sample.reads_s == (11.1, 12.1)


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ((b'{"error": "busy"}',), 503, "status 503"),
        ((ROLE, TEXT, STOP, USAGE), 200, "no proper end"),
        ((ROLE, TEXT, STOP, DONE), 200, "no usage"),
        ((ROLE, TEXT, USAGE, DONE), 200, "by its length"),
        ((ROLE, TEXT, STOP, USAGE.replace(b":2", b":1"), DONE), 200, "1 tokens instead of 2"),
    ],
)
def test_an_incomplete_stream_is_an_error(
    parts: tuple[bytes, ...], status: int, words: str
) -> None:
    sample = watched(*parts, status=status)
    assert sample.error is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(sample.error)


def test_failed_streams_count_neither_in_throughput_nor_in_latency() -> None:
    good = Sample(0.0, 0.5, (0.1, 0.2, 0.5), 3, 3, 7)
    bad = Sample(0.0, 9.0, (8.0,), error="broken")
    row = figures([good, good, bad], window_s=2.0)
    assert row["req_per_s"] == 1.0
    assert row["output_tokens_per_s"] == 3.0
    assert row["requests"] == 3
    assert row["errors"] == 1
    assert row["ttft_ms_p99"] == pytest.approx(100)
    assert row["gap_ms_p50"] == pytest.approx(200)
    assert row["text_reads_per_request"] == 3
    nothing = latency_figures([bad])
    assert set(nothing.values()) == {None}


def test_prompts_are_seeded_distinct_and_of_the_wanted_length() -> None:
    def count(text: str) -> int:
        return len(text.split())

    texts = prompt_texts(1, 20, 90, count)
    assert texts == prompt_texts(1, 20, 90, count)
    assert texts != prompt_texts(2, 20, 90, count)
    assert len({text.split()[0] for text in texts}) == 20
    assert {count(text) for text in texts} == {90}
    body = json.loads(chat_bodies("m", texts, 32)[3])
    assert body["max_tokens"] == body["min_tokens"] == 32
    assert body["stream"] is True
    assert body["messages"][0]["content"] == texts[3]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def served(start: Callable[[], Awaitable[asyncio.Server]]) -> Iterator[Target]:
    """A server in a thread of its own, as the generator runs its own loop."""
    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = await start()
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        for _ in range(5):  # the clients have hung up: let the connections find out
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield Target("127.0.0.1", found[0])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def chunk_server() -> asyncio.Server:
    answers = ChunkAnswers("m")
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: ChunkProtocol(answers, 0.002), "127.0.0.1", 0)


def test_streams_of_a_real_server_are_complete_and_accounted() -> None:
    edges: list[int] = []
    bodies = chat_bodies("m", ["one", "two"], 6)
    with served(chunk_server) as target:
        outcome = run_load(
            target, Load(4, 6, warmup_s=0.1, window_s=0.5), bodies, lambda: edges.append(1)
        )
    assert outcome.faults == ()
    assert len(edges) == 2
    assert len(outcome.samples) >= 4
    assert {sample.output_tokens for sample in outcome.samples} == {6}
    assert {sample.text_chunks for sample in outcome.samples} == {6}
    assert all(s.ttft_s is not None and s.ttft_s >= 0.002 for s in outcome.samples)
    assert outcome.generator_cpu_s > 0
    assert len(outcome.late) == 4


def test_a_server_that_sends_too_little_is_found_out() -> None:
    bodies = chat_bodies("m", ["one"], 6)
    with served(chunk_server) as target:
        outcome = run_load(target, Load(2, 7, warmup_s=0.05, window_s=0.2), bodies)
    assert outcome.faults == ("6 tokens instead of 7",)
    assert figures(outcome.samples, outcome.window_s)["req_per_s"] == 0


def test_a_server_that_hangs_up_is_asked_again_and_counted() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(hang_up, "127.0.0.1", 0)

    with served(start) as target:
        outcome = run_load(target, Load(1, 6, 0.0, 0.4), chat_bodies("m", ["one"], 6))
    assert len(outcome.samples) >= 2
    assert all("connection lost" in fault for fault in outcome.faults)


def test_nobody_listening_is_an_error_and_not_a_crash() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    outcome = run_load(Target("127.0.0.1", port), Load(2, 6, 0.0, 0.2), [b"{}"])
    assert outcome.samples
    assert all("cannot connect" in fault for fault in outcome.faults)


@pytest.mark.parametrize(
    "dialect", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"]
)
def test_every_dialect_that_weir_speaks_is_read(dialect: Dialect, tmp_path: Path) -> None:
    """What the gateway itself writes is complete, and complete only as a whole."""
    (body,) = dialect.bodies("m", ["w1 w2 w3"], 5, None)

    async def main() -> bytes:
        settings = Settings(
            models=(ModelSettings(name="m", source="x"),),
            tenants=(TenantSettings(id="t", key_sha256=(hash_key("k"),)),),
        )
        async with memory_cluster(settings, word_encoder(tmp_path)) as cluster:
            await cluster.add("a")
            told = await cluster.ask(dialect.path, json.loads(body), "k").done()
            return bytes(told.raw)

    raw = virtual_time.run(main())
    events = [event + b"\n\n" for event in raw.split(b"\n\n")[:-1]]

    def read(parts: list[bytes], expected: int = 5) -> Sample:
        watch = Watch(0.0, expected, dialect.shape)
        for part in parts:
            watch.body(part, 1.0)
        return watch.finish(200, 2.0)

    sample = read(events)
    assert sample.error is None
    assert (sample.output_tokens, sample.text_chunks, len(sample.reads_s)) == (5, 5, 5)
    assert sample.prompt_tokens > 3
    assert read(events[:-1]).error is not None
    assert read(events, expected=6).error is not None


def test_a_closed_loops_rate_does_not_depend_on_where_the_window_ends() -> None:
    """Four streams in step, each request half a second: eight a second, not four or eight."""
    waves = [Sample(at, at + 0.5, output_tokens=1) for at in (0.0, 0.5, 1.0) for _ in range(4)]
    assert figures(waves, 1.9, 4)["req_per_s"] == pytest.approx(8.0)
    failed = [replace(sample, error="refused") for sample in waves[:6]]
    assert figures([*failed, *waves[6:]], 1.9, 4)["req_per_s"] == pytest.approx(4.0)
    assert figures([], 1.9, 4)["req_per_s"] == 0.0
