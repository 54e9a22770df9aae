"""The request path over real sockets: answers, failures, cancellation, nothing left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from deployments import wire
from deployments.gateway.connection import ReplicaConnection
from deployments.gateway.sockets import WebSocketTransport
from router.types import KvFeed, ReplicaInfo, ReplicaLoad, RouteRequest
from weir.errors import BadRequestError

TOKEN = "internal"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


def _events(raw: bytes) -> list[Any]:
    lines = [line[6:] for line in raw.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def _text(events: list[Any]) -> str:
    deltas = [event["choices"][0]["delta"] for event in events if event != "[DONE]"]
    return "".join(delta.get("content", "") for delta in deltas)


async def test_streams_what_the_replica_says(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "Hel")
    response = await pending
    assert response.headers["x-weir-replica"] == "a"
    replica.generator.say("r1", "lo")
    replica.generator.end("r1", "!", count=3)
    events = _events(await response.read())
    assert events[-1] == "[DONE]"
    assert _text(events) == "Hello!"
    assert replica.generator.requests["r1"].prompt == [1, 4, 5, 6, 3, 4]
    await _until(lambda: world.outstanding() == 0)


async def test_collects_a_plain_answer(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "max_tokens": 9}))
    await _until(lambda: "r1" in replica.generator.started)
    assert world.outstanding() == 1
    replica.generator.say("r1", "a")
    replica.generator.end("r1", "b", count=2)
    answer = await (await pending).json()
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["usage"]["completion_tokens"] == 2
    assert replica.generator.requests["r1"].sampling.max_tokens == 9


async def test_output_limit_defaults_to_the_room_left(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in replica.generator.started)
    assert replica.generator.requests["r1"].sampling.max_tokens == 64 - 6
    replica.generator.end("r1")
    assert (await pending).status == 200


SHORT = {"classes": {"standard": {"urgency": 1, "max_output_tokens": 5}, "long": {"urgency": 2}}}


@pytest.mark.parametrize("world", [SHORT], indirect=True)
@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, 5),
        ({"max_tokens": 40}, 5),
        ({"max_tokens": 3}, 3),
        ({"priority_class": "long"}, 64 - 6),
    ],
)
async def test_a_class_bounds_the_output_of_its_requests(
    world: Any, fields: dict[str, Any], most: int
) -> None:
    replica = await world.add_replica("a")
    asked, named = {**HELLO, **fields}, fields.get("priority_class", "standard")
    asked.pop("priority_class", None)
    headers = {"x-weir-priority": named}
    pending = asyncio.ensure_future(world.post(asked, **headers))
    await _until(lambda: "r1" in replica.generator.started)
    assert replica.generator.requests["r1"].sampling.max_tokens == most
    replica.generator.end("r1")
    assert (await pending).status == 200


async def test_a_replica_that_dies_before_output_is_replaced(world: Any) -> None:
    first = await world.add_replica("a")
    second = await world.add_replica("b")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in first.generator.started or "r1" in second.generator.started)
    dying, other = (first, second) if "r1" in first.generator.started else (second, first)
    await dying.listener.stop()
    await _until(lambda: "r1" in other.generator.started)
    other.generator.end("r1", "saved")
    response = await pending
    assert "saved" in (await response.read()).decode()
    assert response.headers["x-weir-replica"] == other.name
    retried = world.gateway.metrics.retries.labels("m")._value.get()
    assert retried == 1


async def test_a_stream_that_no_replica_can_go_on_with_ends_with_an_error(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "Hel")
    response = await pending
    await response.content.readany()
    await replica.listener.stop()
    events = _events(await response.read())
    assert events[-1]["error"]["code"] == "replica_failed"
    await _until(lambda: world.outstanding() == 0)
    sent = world.gateway.metrics.output_tokens.labels("t", "m")._value.get()
    assert sent == 1, "what was delivered is counted"


async def test_no_replica_is_a_503_with_retry_after(world: Any) -> None:
    response = await world.post(dict(HELLO))
    assert response.status == 503
    assert int(response.headers["retry-after"]) >= 1
    assert (await response.json())["error"]["code"] == "no_replica"


async def test_all_replicas_dead_is_a_clear_error(world: Any) -> None:
    for name in ("a", "b"):
        replica = await world.add_replica(name)
        await replica.listener.stop()
    response = await world.post(dict(HELLO))
    assert response.status in (502, 503)
    assert world.outstanding() == 0


async def test_what_the_engine_refuses_is_the_clients_error(world: Any) -> None:
    replica = await world.add_replica("a")
    replica.generator.refuse = BadRequestError("logits processor does not like it")
    response = await world.post(dict(HELLO))
    assert response.status == 400
    assert "does not like it" in (await response.json())["error"]["message"]
    assert world.outstanding() == 0


async def test_a_crash_while_starting_is_not_the_clients_error(world: Any) -> None:
    replica = await world.add_replica("a")
    replica.generator.refuse = RuntimeError("bug")
    response = await world.post(dict(HELLO))
    assert response.status == 502
    assert world.outstanding() == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after_output", [True, False])
async def test_a_client_that_leaves_frees_everything(
    world: Any, stream: bool, after_output: bool
) -> None:
    replica = await world.add_replica("a")
    async with aiohttp.ClientSession() as leaving:
        world.session, kept = leaving, world.session
        pending = asyncio.ensure_future(world.post({**HELLO, "stream": stream}))
        await _until(lambda: "r1" in replica.generator.started)
        if after_output:
            replica.generator.say("r1", "Hel")
            await asyncio.sleep(0.05)
        pending.cancel()
        world.session = kept
    if pending.done() and not pending.cancelled():
        pending.result().close()
    await _until(lambda: replica.generator.aborted == ["r1"])
    await _until(lambda: world.outstanding() == 0 and replica.streams.in_flight == 0)


async def test_a_client_that_leaves_while_the_request_is_being_added(world: Any) -> None:
    """Cancelled between submission and the engine's answer: aborted as soon as it is added."""
    replica = await world.add_replica("a")
    replica.generator.submitting = asyncio.Event()
    async with aiohttp.ClientSession() as leaving:
        world.session, kept = leaving, world.session
        pending = asyncio.ensure_future(world.post(dict(HELLO)))
        await _until(lambda: replica.streams.in_flight == 1)
        pending.cancel()
        world.session = kept
    await _until(lambda: replica.streams.in_flight == 0)
    replica.generator.submitting.set()
    await _until(lambda: replica.generator.aborted == ["r1"])
    assert world.outstanding() == 0


async def test_a_gateway_that_dies_frees_its_streams(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    connection = await world.model.fleet.connection("a")
    await connection.close()
    await _until(lambda: replica.generator.aborted == ["r1"])
    response = await pending
    assert response.status == 200 or response.status >= 500


async def test_load_reaches_the_router(world: Any) -> None:
    replica = await world.add_replica("a", silent=True)
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in replica.generator.started)
    replica.streams.tell_load(asyncio.get_running_loop().time())
    await _until(lambda: world.model.router.snapshot().replicas[0].stats.running == 1)
    view = world.model.router.snapshot().replicas[0]
    assert view.stats.kv_blocks_used == 7
    assert view.load == world.model.router.own_load("a"), "own requests are not counted twice"
    replica.generator.end("r1")
    await pending


async def test_another_gateways_streams_count_until_they_end(world: Any) -> None:
    replica = await world.add_replica("a", silent=True)
    router, told = world.model.router, asyncio.get_running_loop().time
    router.choose(_request("own", 7))
    other = await _connect(world, replica, Heard())
    sampling = wire.Sampling(max_tokens=10)
    stream = other.submit(wire.Submit(0, "theirs", [1, 2, 3], sampling))
    await _until(lambda: "theirs" in replica.generator.started)
    replica.streams.tell_load(told())
    await _until(lambda: router.snapshot().replicas[0].load == ReplicaLoad(2, 10, 14, 10))
    replica.generator.say("theirs", "a")
    replica.streams.tell_load(told())
    await _until(lambda: router.snapshot().replicas[0].load == ReplicaLoad(2, 7, 13, 11))
    stream.close()
    await _until(lambda: replica.generator.aborted == ["theirs"])
    replica.streams.tell_load(told())
    await _until(lambda: router.snapshot().replicas[0].load == router.own_load("a"))
    await other.close()


async def test_what_has_not_changed_is_not_told_again(world: Any) -> None:
    replica = await world.add_replica("a", silent=True)
    listener = Heard()
    heard = listener.loads
    other = await _connect(world, replica, listener)
    await _until(lambda: len(heard) == 1)
    start = asyncio.get_running_loop().time()
    for step in range(21):
        replica.streams.tell_load(start + step * 0.05)
    await _until(lambda: len(heard) == 2)  # told again after a second, as a sign of life
    await asyncio.sleep(0.05)
    assert len(heard) == 2
    await other.close()


async def test_tokens_tell_that_a_step_ended(world: Any) -> None:
    replica = await world.add_replica("a")
    listener = Heard()
    steps = listener.steps
    other = await _connect(world, replica, listener)
    sampling = wire.Sampling(max_tokens=10)
    stream = other.submit(wire.Submit(0, "r", [1, 2, 3], sampling))
    await _until(lambda: "r" in replica.generator.started)
    assert steps == []
    replica.generator.say("r", "a")
    await _until(lambda: steps == ["a"])
    stream.close()
    await other.close()


class Heard:
    """Keeps what a replica says of itself."""

    def __init__(self) -> None:
        self.loads: list[wire.Load] = []
        self.steps: list[str] = []

    def heard_adapters(self, replica_id: str, adapters: wire.Adapters) -> None:
        raise AssertionError("there are none")

    def heard_load(self, replica_id: str, load: wire.Load) -> None:
        self.loads.append(load)

    def stepped(self, replica_id: str) -> None:
        self.steps.append(replica_id)

    def lost(self, connection: ReplicaConnection) -> None:
        """Nobody minds."""

    def leaving(self, replica_id: str) -> None:
        """Nobody minds."""

    def doubted(self, replica_id: str, for_s: float) -> None:
        """Nobody minds."""


async def _connect(world: Any, replica: Any, listener: Heard) -> ReplicaConnection:
    transport = WebSocketTransport(world.session, TOKEN)
    channel = await transport.connect("a", replica.listener.address)
    return ReplicaConnection("a", channel, listener)


def _request(request_id: str, prompt_tokens: int) -> RouteRequest:
    return RouteRequest(request_id, "m", "t", prompt_tokens, 4, 4)


async def test_outputs_that_pile_up_are_joined(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    for _ in range(50):
        replica.generator.say("r1", "x")
    replica.generator.end("r1", "y", count=51)
    events = _events(await (await pending).read())
    assert _text(events) == "x" * 50 + "y"
    assert len(events) < 20


async def test_an_unknown_priority_class_is_named(world: Any) -> None:
    await world.add_replica("a")
    headers = {"authorization": "Bearer weir_test-key", "x-weir-priority": "vip"}
    body = {"model": "m", **HELLO}
    async with world.session.post(
        world.url + "/v1/chat/completions", json=body, headers=headers
    ) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "x-weir-priority")


ONE_AT_A_TIME = {"limits": {"places": {"running": 1}}}


@pytest.mark.parametrize("world", [ONE_AT_A_TIME], indirect=True)
async def test_admission_holds_a_request_until_there_is_room(world: Any) -> None:
    replica = await world.add_replica("a")
    first = asyncio.ensure_future(world.post({**HELLO, "id": "r1"}))
    await _until(lambda: "r1" in replica.generator.started)
    second = asyncio.ensure_future(world.post({**HELLO, "id": "r2"}))
    await _until(lambda: len(world.model.gate) == 1)
    assert "r2" not in replica.generator.started
    replica.generator.end("r1")
    await _until(lambda: "r2" in replica.generator.started)
    replica.generator.end("r2")
    assert (await first).status == (await second).status == 200
    assert world.outstanding() == 0


@pytest.mark.parametrize("world", [ONE_AT_A_TIME], indirect=True)
async def test_a_client_that_leaves_the_queue_is_forgotten(world: Any) -> None:
    replica = await world.add_replica("a")
    first = asyncio.ensure_future(world.post({**HELLO, "id": "r1"}))
    await _until(lambda: "r1" in replica.generator.started)
    async with aiohttp.ClientSession() as leaving:
        world.session, kept = leaving, world.session
        second = asyncio.ensure_future(world.post({**HELLO, "id": "r2"}))
        await _until(lambda: len(world.model.gate) == 1)
        second.cancel()
        world.session = kept
    await _until(lambda: len(world.model.gate) == 0)
    replica.generator.end("r1")
    assert (await first).status == 200
    assert "r2" not in replica.generator.requests
    assert world.outstanding() == 0


async def test_the_engine_gets_priority_and_salt(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in replica.generator.started)
    submitted = replica.generator.requests["r1"]
    assert submitted.cache_salt == "tenant:t"
    assert submitted.priority > 0
    replica.generator.end("r1")
    await pending


def _route(hashes: tuple[int, ...]) -> RouteRequest:
    return RouteRequest("q", "m", "t", 4 * len(hashes), 8, block_hashes=hashes)


async def test_a_clients_salt_parts_its_prompts_from_the_tenants_others(world: Any) -> None:
    """In the engine and in the router's block hashes alike, or caches would be looked for where
    they are not."""
    replica = await world.add_replica("a")
    feed = KvFeed("events", None, "sha256", "7")
    world.model.hasher.follow([ReplicaInfo("a", block_size=2, kv_events=True, kv_feed=feed)])
    hashes, salts = [], []
    for number, salt in enumerate((None, "one", "two", "one"), start=1):
        body = {**HELLO, "id": f"s{number}"} | ({"cache_salt": salt} if salt else {})
        pending = asyncio.ensure_future(world.post(body))
        await _until(lambda name=f"s{number}": name in replica.generator.started)
        submitted = replica.generator.requests[f"s{number}"]
        salts.append(submitted.cache_salt)
        hashes.append(world.model.hasher.keys(submitted.prompt, submitted.cache_salt))
        held = world.model.router.view().held(_route(hashes[-1]))
        assert held == {"a": len(hashes[-1])} != {"a": 0}, "the router noted the engine's salt"
        replica.generator.end(f"s{number}")
        assert (await pending).status == 200
    assert salts[1] == salts[3] != salts[2]
    assert salts[0] == "tenant:t"
    assert hashes[1] == hashes[3]
    assert len({hashes[0], hashes[1], hashes[2]}) == 3


async def test_an_engine_that_aborts_is_a_replica_that_failed(world: Any) -> None:
    first, second = await world.add_replica("a"), await world.add_replica("b")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in first.generator.started or "r1" in second.generator.started)
    dying, other = (first, second) if "r1" in first.generator.started else (second, first)
    put, number = dying.generator.started.pop("r1"), dying.generator.requests["r1"].stream
    put(wire.Done(number, "", [], "abort", 6, 0, 0))
    await _until(lambda: "r1" in other.generator.started)
    other.generator.end("r1", "fine")
    assert "fine" in await (await pending).text()
    assert world.outstanding() == 0
