"""Streams go on at another replica when theirs is lost, drains, or cannot take them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from deployments import wire
from deployments.testing import Replica
from weir.errors import OverloadedError, UnsupportedError

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}
PROMPT = [1, 4, 5, 6, 3, 4]


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


def _text(raw: bytes) -> str:
    lines = [line[6:] for line in raw.decode().split("\n\n") if line]
    deltas = [json.loads(line)["choices"] for line in lines if line != "[DONE]"]
    return "".join(c[0]["delta"].get("content", "") for c in deltas if c)


def _prefilled(world: Any) -> bool:
    """Whether the gateway has seen the first output of what is under way."""
    loads = [view.load for view in world.model.router.snapshot().replicas]
    return not any(load.prefill_tokens for load in loads)


async def _pair(world: Any, name: str = "r1", **body: Any) -> tuple[Any, Replica, Replica]:
    """A request under way on one of two replicas: it, its replica, and the other one."""
    first, second = await world.add_replica("a"), await world.add_replica("b")
    pending = asyncio.ensure_future(world.post({**HELLO, **body}))
    await _until(lambda: name in first.generator.started or name in second.generator.started)
    here = name in first.generator.started
    return pending, first if here else second, second if here else first


def _moves(world: Any, reason: str = "failure") -> float:
    return float(world.gateway.metrics.moves.labels("m", reason)._value.get())


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_outlives_its_replica(world: Any, stream: bool) -> None:
    pending, dying, other = await _pair(world, stream=stream, max_tokens=9)
    dying.generator.say("r1", "Hel", tokens=2)
    await _until(lambda: _prefilled(world))
    await dying.listener.stop()
    await _until(lambda: "r1" in other.generator.started)
    resumed = other.generator.requests["r1"]
    assert resumed.prompt == PROMPT
    assert resumed.resume == wire.Resume([1, 1], 3)
    assert resumed.sampling.max_tokens == 9, "of the whole output"
    other.generator.end("r1", "lo!", count=2)
    response = await pending
    raw = await response.read()
    if stream:
        assert _text(raw) == "Hello!"
    else:
        answer = json.loads(raw)
        assert answer["choices"][0]["message"]["content"] == "Hello!"
        assert answer["usage"]["completion_tokens"] == 4
        assert answer["usage"]["prompt_tokens"] == len(PROMPT)
    await _until(lambda: world.outstanding() == 0)
    assert _moves(world) == 1
    assert world.gateway.metrics.output_tokens.labels("t", "m")._value.get() == 4
    assert world.gateway.metrics.prompt_tokens.labels("t", "m")._value.get() == len(PROMPT)


async def test_what_was_sent_of_reasoning_and_calls_is_told(world: Any) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    pending, dying, other = await _pair(world, stream=True, tools=[tool])
    calls = [wire.CallDelta(0, "", "call_1", "f"), wire.CallDelta(0, '{"a"')]
    dying.generator.put("r1", "ok", wire.Extra(reasoning="hmm", calls=calls), tokens=3)
    response = await pending
    await response.content.readany()
    await dying.listener.stop()
    await _until(lambda: "r1" in other.generator.started)
    assert other.generator.requests["r1"].resume == wire.Resume([1, 1, 1], 2, 3, [4])
    other.generator.end("r1", "")
    await response.read()


async def test_each_choice_moves_for_itself(world: Any) -> None:
    first, second = await world.add_replica("a"), await world.add_replica("b")
    pending = asyncio.ensure_future(world.post({**HELLO, "n": 2}))

    def where(name: str) -> Replica | None:
        return next((r for r in (first, second) if name in r.generator.started), None)

    await _until(lambda: where("r1-0") and where("r1-1"))
    dying = where("r1-0")
    assert dying is not None
    other = second if dying is first else first
    dying.generator.say("r1-0", "a")
    await asyncio.sleep(0.05)  # the other choice has no output yet, so there is nothing to see
    await dying.listener.stop()
    for name in ("r1-0", "r1-1"):
        await _until(lambda name=name: name in other.generator.started)
        other.generator.end(name, "z")
    answer = await (await pending).json()
    assert [c["message"]["content"] for c in answer["choices"]] == ["az", "z"]
    await _until(lambda: world.outstanding() == 0)


async def test_a_draining_replica_sends_long_streams_away(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.connection.DRAIN_GRACE_S", 0.05)
    pending, leaving, other = await _pair(world, stream=True)
    leaving.generator.say("r1", "a")
    response = await pending
    for connection in leaving.streams._connections:
        connection.tell(wire.Load(1, 0, 7, draining=True))
    await _until(lambda: "r1" in other.generator.started)
    await _until(lambda: leaving.generator.aborted == ["r1"])
    other.generator.end("r1", "b")
    assert _text(await response.read()) == "ab"
    assert _moves(world, "drain") == 1
    again = asyncio.ensure_future(world.post({**HELLO, "id": "r2"}))
    await _until(lambda: "r2" in other.generator.started)
    other.generator.end("r2")
    await again


async def test_the_last_replica_keeps_its_streams_while_it_drains(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.connection.DRAIN_GRACE_S", 0.02)
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    for connection in replica.streams._connections:
        connection.tell(wire.Load(1, 0, 7, draining=True))
    await asyncio.sleep(0.1)
    replica.generator.end("r1", "whole")
    assert _text(await (await pending).read()) == "whole"
    assert replica.generator.aborted == []


async def test_a_replica_whose_engine_is_dead_is_not_the_requests_end(world: Any) -> None:
    first, second = await world.add_replica("a"), await world.add_replica("b")
    for replica in (first, second):
        other = second if replica is first else first
        replica.generator.refuse = OverloadedError("The engine is down.")
        for n in range(5):
            pending = asyncio.ensure_future(world.post({**HELLO, "id": f"{replica.name}{n}"}))
            name = f"{replica.name}{n}"
            await _until(lambda name=name, other=other: name in other.generator.started)
            other.generator.end(name)
            assert (await pending).status == 200
        replica.generator.refuse = None


async def test_a_replica_that_comes_back_in_time_goes_on(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "a")
    response = await pending
    await replica.listener.stop()
    new = await world.add_replica("b")
    await _until(lambda: "r1" in new.generator.started)
    new.generator.end("r1", "b")
    assert _text(await response.read()) == "ab"


async def test_what_fails_everywhere_is_the_requests_own_fault(world: Any) -> None:
    replicas = [await world.add_replica(name) for name in "abc"]
    for replica in replicas:
        replica.generator.refuse = RuntimeError("this prompt breaks it")
    response = await world.post(dict(HELLO))
    assert response.status == 500
    error = (await response.json())["error"]
    assert error["code"] == "request_failed"
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    assert world.outstanding() == 0


async def test_a_stream_that_cannot_be_resumed_ends_with_a_clear_error(world: Any) -> None:
    pending, dying, other = await _pair(world, stream=True)
    dying.generator.say("r1", "{")
    other.generator.refuse = UnsupportedError("A grammar cannot be resumed here.")
    response = await pending
    await response.content.readany()
    await dying.listener.stop()
    raw = await response.read()
    assert b"A grammar cannot be resumed here." in raw
    await _until(lambda: world.outstanding() == 0)


async def test_a_silent_replica_is_given_nothing_new(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.connection.DOUBT_S", 0.3)
    monkeypatch.setattr("deployments.streams._REPEAT_LOAD_S", 0.05)
    silent, speaking = await world.add_replica("a", silent=True), await world.add_replica("b")
    await asyncio.sleep(0.8)
    asked = [asyncio.ensure_future(world.post({**HELLO, "id": f"r{n}"})) for n in range(6)]
    await _until(lambda: len(speaking.generator.started) == 6)
    assert not silent.generator.started
    for n in range(6):
        speaking.generator.end(f"r{n}", "x", count=1)
    for pending in asked:
        assert (await pending).status == 200


async def test_a_gateway_that_was_paused_blames_no_replica(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the machine stands still, nobody can be heard: streams go on where they are."""
    monkeypatch.setattr("deployments.gateway.connection.SILENCE_S", 0.6)
    monkeypatch.setattr("deployments.gateway.connection.DOUBT_S", 0.3)
    monkeypatch.setattr("deployments.gateway.connection.STEP_S", 0.6)
    monkeypatch.setattr("deployments.streams._REPEAT_LOAD_S", 0.1)
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in replica.generator.started)
    for _ in range(2):
        replica.generator.say("r1", "x")
        await asyncio.sleep(0.4)
        time.sleep(2.0)  # noqa: ASYNC251 - the whole process, as when its machine is paused
    connection = await world.model.fleet.connection("a")
    assert (connection.broken, connection.open_streams) == (False, 1)
    assert _moves(world) == 0
    replica.generator.end("r1", "y", count=3)
    assert _text(await (await pending).read()) == "xxy"
