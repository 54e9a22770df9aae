"""Streams whose clients wait are kept open, and nothing else changes for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments import wire
from deployments.gateway.dialects.chat import ChatDialect
from deployments.gateway.outputs import Counts
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.silence import Silence
from deployments.gateway.sink import HttpSink
from deployments.testing.cluster import Cluster, Host, until
from deployments.testing.exchange import Exchange
from deployments.testing.in_memory import memory_cluster
from deployments.testing.judging import ask, right_answers
from deployments.testing.kinds import KINDS, TONE, Kind, agrees
from deployments.testing.words import word_encoder
from weir.errors import OverloadedError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.tree import ServerSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time

COMMENT = b": waiting\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_ONE_PLACE: dict[str, Any] = {"limits": {"places": {"running": 1}}}
_PATIENT = {"classes": {"standard": {"urgency": 1, "max_wait_s": 3600}}, **_ONE_PLACE}
_HASTY = {"classes": {"standard": {"urgency": 1, "max_wait_s": 90}}, **_ONE_PLACE}

Scenario = Callable[[Cluster], Awaitable[None]]
streamed = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return word_encoder(tmp_path_factory.mktemp("words"))


@pytest.fixture
def play(encoder: PromptEncoder) -> Callable[..., None]:
    def run(scenario: Scenario, admission: dict[str, Any], first_s: float | None = 20.0) -> None:
        tenants = tuple(TenantSettings(id=t, key_sha256=(hash_key(t),)) for t in ("one", "two"))
        settings = Settings(
            models=(ModelSettings(name="m", source="x", adapters=(TONE,)),),
            tenants=tenants,
            admission=admission,
            server=ServerSettings(early_headers_s=first_s),
        )

        async def main() -> None:
            async with memory_cluster(settings, encoder) as cluster:
                await scenario(cluster)

        virtual_time.run(main())

    return run


async def _queued(cluster: Cluster, kind: Kind, stream: bool = True) -> tuple[Host, Exchange]:
    """A request that waits behind another one, whose engine stands still."""
    host = await cluster.add("a")
    # A queue that is full is what is looked at, not an engine that hangs.
    host.generator.load = lambda: wire.Load(0, 0, 0)  # type: ignore[method-assign]
    host.freeze_engine()
    ask(cluster, KINDS[0], 1, True, "two", "first")
    await until(lambda: len(host.meter.streams) == 1)
    told = ask(cluster, kind, 2, stream, "one", "r")
    await until(lambda: len(cluster.model.dispatcher.queue) == kind.choices)
    return host, told


def _lines(kind: Kind, told: Exchange) -> int:
    """The lines that keep the stream open."""
    line = PING if "messages" in kind.name else COMMENT
    return bytes(told.raw).count(line)


@streamed
def test_a_stream_that_waits_is_opened_and_then_answered(
    play: Callable[..., None], kind: Kind
) -> None:
    async def scenario(cluster: Cluster) -> None:
        host, told = await _queued(cluster, kind)
        await asyncio.sleep(19)
        assert told.status == 0
        await asyncio.sleep(2)
        assert told.status == 200
        assert _lines(kind, told) == 1
        await asyncio.sleep(45)
        assert 3 <= _lines(kind, told) <= 4
        host.thaw_engine()
        await told.done()
        answer = kind.read(bytes(told.raw), True)
        assert answer.complete, told.raw
        right = right_answers(cluster, kind, "r", 2)
        assert all(agrees(said, true) for said, true in zip(answer.said, right, strict=True))
        assert "x-weir-replica" not in told.headers
        await cluster.idle()
        assert cluster.bill("one").prompt_tokens > 0

    play(scenario, _PATIENT)


@streamed
def test_an_error_after_that_is_an_event(play: Callable[..., None], kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        host, told = await _queued(cluster, kind)
        await told.done()  # the class lets nobody wait for longer than 90 s
        assert told.status == 200
        error = kind.read(bytes(told.raw), True).error
        assert error is not None, told.raw
        assert "90" in error["message"]
        requests = cluster.gateway.metrics.requests
        codes = {s.labels["code"] for m in requests.collect() for s in m.samples if s.value}
        assert "overloaded" in codes
        host.thaw_engine()
        await cluster.idle()
        assert cluster.bill("one").prompt_tokens == 0

    play(scenario, _HASTY)


@pytest.mark.parametrize(
    ("stream", "first_s"),
    [(True, None), (False, 20.0), (True, 100.0)],
    ids=["off", "whole", "late"],
)
def test_other_requests_keep_their_status(
    play: Callable[..., None], stream: bool, first_s: float | None
) -> None:
    async def scenario(cluster: Cluster) -> None:
        host, told = await _queued(cluster, KINDS[0], stream)
        await told.done()
        assert told.status == 503
        assert int(told.headers["retry-after"]) >= 1
        host.thaw_engine()
        await cluster.idle()

    play(scenario, _HASTY, first_s)


def test_a_client_that_leaves_an_early_stream_is_forgotten(play: Callable[..., None]) -> None:
    async def scenario(cluster: Cluster) -> None:
        host, told = await _queued(cluster, KINDS[0])
        await asyncio.sleep(30)
        await told.leave()
        await until(lambda: len(cluster.model.dispatcher.queue) == 0)
        host.thaw_engine()
        await cluster.idle()
        assert cluster.bill("one").prompt_tokens == 0

    play(scenario, _PATIENT)


class _Client:
    """Where a sink writes to. ``stuck``: it does not read now."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.got: list[str] = []

    async def send(self, event: dict[str, Any]) -> None:
        await self.reads.wait()
        body = event.get("body")
        self.got.append("start" if body is None else body.decode())


async def _writing(client: _Client, first_s: float | None) -> tuple[HttpSink, Silence, Any]:
    dialect = ChatDialect()
    body = dialect.parse(
        b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    )
    sink = HttpSink(client.send, dialect)
    silence = Silence(first_s)
    silence.watch(sink, asyncio.get_running_loop().time(), list)
    writer = dialect.writer(body, "r", 0, [[1]], None)  # type: ignore[arg-type]
    answer = sink.begin(writer, 1, True, list, lambda: None)
    return sink, silence, answer


def test_gaps_in_the_middle_are_filled() -> None:
    async def main() -> None:
        client = _Client()
        sink, silence, answer = await _writing(client, None)
        await asyncio.sleep(60)
        assert client.got == []
        for _ in range(5):
            await answer.put(0, wire.Chunk(1, "a", [1]))
            await asyncio.sleep(10)
        assert COMMENT.decode() not in client.got
        await asyncio.sleep(30)
        assert client.got.count(COMMENT.decode()) == 2
        await answer.put(0, wire.Done(1, "b", [1], "stop", 1, 0, 6))
        await answer.end(Counts())
        silence.forget(sink)
        await asyncio.sleep(60)
        assert client.got.count(COMMENT.decode()) == 2
        assert client.got.count("start") == 1

    virtual_time.run(main())


@pytest.mark.parametrize("ending", ["output", "error"])
def test_a_line_that_is_being_written_comes_first(ending: str) -> None:
    async def main() -> None:
        client = _Client()
        client.reads.clear()
        sink, silence, answer = await _writing(client, 5.0)
        await asyncio.sleep(8)  # the status line waits for the client to read
        if ending == "output":
            writing = asyncio.create_task(answer.put(0, wire.Chunk(1, "a", [1])))
        else:
            writing = asyncio.create_task(sink.fail(OverloadedError("no"), []))
        await asyncio.sleep(1)
        client.reads.set()
        await writing
        silence.forget(sink)
        assert client.got[:2] == ["start", COMMENT.decode()]
        assert len(client.got) == 3
        assert client.got[2].startswith("data: ")

    virtual_time.run(main())
