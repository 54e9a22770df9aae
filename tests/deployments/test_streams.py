"""The replica's end of the protocol, around the stub: no socket, no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from deployments import wire
from deployments.roles import RoleKeeper
from deployments.streams import Abort, Put, TokenStreams
from deployments.stub_generator import StubGenerator
from weir.errors import BadRequestError
from weir.testing.virtual_time import run

_to_replica = msgspec.msgpack.Encoder().encode


class Gateway:
    """One connection to a replica's streams, seen from the other side."""

    def __init__(self, streams: TokenStreams) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._events.put_nowait({"type": "websocket.connect"})
        self.got: list[wire.FromReplica] = []
        self.task = asyncio.create_task(streams.serve(self._events.get, self._receive))

    async def _receive(self, event: dict[str, Any]) -> None:
        if event["type"] == "websocket.send":
            self.got += wire.decode_from_replica(event["bytes"])

    def send(self, message: Any) -> None:
        self._events.put_nowait({"type": "websocket.receive", "bytes": _to_replica(message)})

    def of(self, stream: int) -> list[Any]:
        """What was told of one stream."""
        return [m for m in self.got if not isinstance(m, wire.Load) and m.stream == stream]

    @property
    def loads(self) -> list[wire.Load]:
        return [m for m in self.got if isinstance(m, wire.Load)]

    async def close(self) -> None:
        self._events.put_nowait({"type": "websocket.disconnect"})
        await self.task

    async def ended(self, stream: int) -> Any:
        """Its last message, once it has come."""
        async with asyncio.timeout(5):
            while not (said := self.of(stream)) or isinstance(said[-1], wire.Chunk | wire.Started):  # noqa: ASYNC110 - polls
                await asyncio.sleep(0)
        return said[-1]


def submit(stream: int, tokens: int = 3, **more: Any) -> wire.Submit:
    sampling = wire.Sampling(max_tokens=tokens)
    return wire.Submit(stream, f"r{stream}", [1, 2, 3, 4], sampling, **more)


class Held(StubGenerator):
    """Starts nothing until released; may refuse."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.released = asyncio.Event()
        self.refuse: Exception | None = None
        self.aborted = 0

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        await self.released.wait()
        if self.refuse is not None:
            raise self.refuse
        abort = await super().submit(request, put)

        async def counted() -> None:
            self.aborted += 1
            await abort()

        return counted


@pytest.fixture
async def held() -> Held:
    return Held()


@pytest.fixture
async def streams(held: Held) -> TokenStreams:
    return TokenStreams(held)


@pytest.fixture
async def gateway(streams: TokenStreams) -> AsyncIterator[Gateway]:
    gateway = Gateway(streams)
    await asyncio.sleep(0)
    yield gateway
    await gateway.close()


async def test_the_prompt_is_told_before_the_first_chunk_and_done_is_last(
    held: Held, gateway: Gateway
) -> None:
    held.released.set()
    gateway.send(submit(1))
    await gateway.ended(1)
    kinds = [type(m) for m in gateway.of(1)]
    assert kinds == [wire.Started, wire.Chunk, wire.Chunk, wire.Used, wire.Done]


async def test_an_embedding_is_one_message_and_its_work_is_counted_until_then(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(wire.Embed(1, "r", [1, 2, 3], dimensions=4))
    answer = await gateway.ended(1)
    assert isinstance(answer, wire.Embedded)
    assert len(answer.vector) == 4
    assert streams.in_flight == 0


async def test_what_another_gateway_resumes_counts_as_prefill(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(submit(1, tokens=10, resume=wire.Resume([5, 6, 7])))
    other = Gateway(streams)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    streams.tell_load(10.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    told = other.loads[-1]
    assert (told.elsewhere_requests, told.elsewhere_prefill_tokens) == (1, 7)
    assert (told.elsewhere_decode_tokens, told.elsewhere_context_tokens) == (7, 7)
    own = gateway.loads[-1]
    assert (own.elsewhere_requests, own.elsewhere_prefill_tokens) == (0, 0)
    held.released.set()
    await gateway.ended(1)
    streams.tell_load(20.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert other.loads[-1].elsewhere_requests == 0
    await other.close()


async def test_a_refusal_carries_its_status(held: Held, gateway: Gateway) -> None:
    held.refuse = BadRequestError("no")
    held.released.set()
    gateway.send(submit(1))
    assert await gateway.ended(1) == wire.Failed(1, 400, "no")


async def test_a_stream_cancelled_while_it_starts_is_freed(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(submit(1))
    gateway.send(wire.Cancel(1))
    await asyncio.sleep(0.01)
    held.released.set()
    await asyncio.sleep(0.01)
    assert held.aborted == 1
    assert streams.in_flight == 0
    assert gateway.of(1) == [wire.Used(1, 0, 0, 0)]
    assert held.load().running == 0


async def test_a_gateway_that_leaves_frees_its_streams(held: Held, streams: TokenStreams) -> None:
    held.released.set()
    gateway = Gateway(streams)
    gateway.send(submit(1, tokens=10**6))
    async with asyncio.timeout(5):
        while not gateway.of(1):  # noqa: ASYNC110 - polls
            await asyncio.sleep(0)
    await gateway.close()
    assert held.load().running == 0
    assert streams.in_flight == 0


async def test_draining_is_told_at_once_and_waits_for_what_is_left(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(submit(1, tokens=2))
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(streams.drain(5.0))
    await asyncio.sleep(0.01)
    assert gateway.loads[-1].draining
    assert not draining.done()
    held.released.set()
    await draining
    assert isinstance(gateway.of(1)[-1], wire.Done)


async def test_draining_ends_after_its_time(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(submit(1))
    await asyncio.sleep(0.01)
    await streams.drain(0.01)
    assert streams.in_flight == 1


async def test_the_steps_stand_still_while_the_generator_hangs(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    held.released.set()
    gateway.send(submit(1, tokens=10**6))
    await asyncio.sleep(0.01)
    held.freeze()
    streams.tell_load(10.0)
    await asyncio.sleep(0.01)
    streams.tell_load(20.0)
    await asyncio.sleep(0.01)
    before, after = gateway.loads[-2:]
    assert before.steps == after.steps > 0
    held.thaw()
    await asyncio.sleep(0.01)
    streams.tell_load(30.0)
    await asyncio.sleep(0.01)
    assert gateway.loads[-1].steps > after.steps


async def test_what_the_engine_has_not_got_yet_is_told(
    held: Held, streams: TokenStreams, gateway: Gateway
) -> None:
    gateway.send(submit(1, tokens=10**6))
    await asyncio.sleep(0.01)
    streams.tell_load(10.0)
    await asyncio.sleep(0.01)
    assert gateway.loads[-1].preparing == 1
    held.released.set()
    await asyncio.sleep(0.01)
    streams.tell_load(20.0)
    await asyncio.sleep(0.01)
    assert gateway.loads[-1].preparing == 0


class Counted(StubGenerator):
    """Counts how often it is asked for its load."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.asked = 0

    def load(self) -> wire.Load:
        self.asked += 1
        return super().load()


def test_an_idle_replica_looks_once_a_second_and_a_busy_one_tells_others_soon() -> None:
    async def main() -> None:
        generator = Counted()
        streams = TokenStreams(generator)
        telling = asyncio.create_task(streams.tell_load_forever())
        one, other = Gateway(streams), Gateway(streams)
        await asyncio.sleep(10.0)
        assert generator.asked < 60, "twenty times a second in its first one, then rarely"
        before = len(one.loads)
        await asyncio.sleep(10.0)
        assert 8 <= len(one.loads) - before <= 12, "gateways take longer silence for a failure"
        await asyncio.sleep(0.5)
        one.send(submit(1, tokens=20))
        await asyncio.sleep(0.1)
        assert other.loads[-1].elsewhere_requests == 1
        await asyncio.sleep(0.3)
        assert isinstance(one.of(1)[-1], wire.Done)
        assert other.loads[-1].elsewhere_requests == 0
        telling.cancel()
        await one.close()
        await other.close()

    run(main())


def test_a_role_that_is_given_to_an_idle_replica_is_told_at_once() -> None:
    async def main() -> None:
        streams = TokenStreams(StubGenerator(0.0), RoleKeeper("mixed", changes=True))
        telling = asyncio.create_task(streams.tell_load_forever())
        gateway = Gateway(streams)
        await asyncio.sleep(100.5)
        streams.roles.change("prefill", asyncio.get_running_loop().time())
        await asyncio.sleep(0.1)
        assert gateway.loads[-1].role == "prefill"
        telling.cancel()
        await gateway.close()

    run(main())
