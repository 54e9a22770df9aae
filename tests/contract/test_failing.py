"""Replicas that refuse, die and freeze: the client sees the answer of an undisturbed run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments.gateway import connection
from deployments.testing.cluster import Cluster, Host, until
from deployments.testing.exchange import Exchange
from deployments.testing.judging import ask, right_answers
from deployments.testing.kinds import KINDS, Kind, agrees
from weir.errors import BadRequestError, OverloadedError

Play = Callable[..., None]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
streamed_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)


async def _two(cluster: Cluster) -> list[Host]:
    return [await cluster.add("a", interval_s=0.02), await cluster.add("b", interval_s=0.02)]


async def _serving(hosts: list[Host]) -> tuple[Host, Host]:
    """The replica that has something to do, and another one."""
    await until(lambda: any(host.meter.streams for host in hosts))
    busy = next(host for host in hosts if host.meter.streams)
    return busy, next(host for host in hosts if host is not busy)


async def _judge(cluster: Cluster, kind: Kind, told: Exchange, stream: bool) -> None:
    """The answer is right, its tokens are billed once, and nothing is left."""
    await told.done()
    answer = kind.read(bytes(told.raw), stream)
    assert told.status == 200, told.raw
    assert answer.error is None
    assert answer.complete
    right = right_answers(cluster, kind, "r", 1)
    assert len(answer.said) == len(right)
    assert all(map(agrees, answer.said, right)), (answer.said, right)
    await until(lambda: not cluster.gateway_left_over())
    bill = cluster.bill("one")
    assert answer.usage is None or bill.prompt_tokens == answer.usage["prompt_tokens"]
    words = sum(said.text.count("w") for said in answer.said)
    assert bill.output_tokens <= max(words, 12 * kind.choices)


@every_kind
def test_a_refused_request_is_the_clients_error(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        for host in await _two(cluster):
            host.generator.refuse = BadRequestError("the engine does not take this")
        told = await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        # One in the background was taken before it failed.
        assert told.status == (200 if kind.background else 400)
        error = kind.read(bytes(told.raw), False).error
        assert error is not None
        assert "does not take this" in error["message"]
        await cluster.idle()
        assert cluster.bill("one").output_tokens == 0

    play(scenario)


@every_kind
def test_a_dead_engine_is_not_the_requests_end(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = await _two(cluster)
        for dead in hosts:
            dead.generator.refuse = OverloadedError("the engine is down")
            told = ask(cluster, kind, 1, kind.streams, "one", "r")
            await told.done()
            assert told.status == 200, told.raw
            answer = kind.read(bytes(told.raw), kind.streams)
            right = right_answers(cluster, kind, "r", 1)
            assert all(map(agrees, answer.said, right))
            dead.generator.refuse = None
        await cluster.idle()

    play(scenario)


@every_kind
@pytest.mark.parametrize("way", ["dies", "freezes"])
def test_before_the_first_token(play: Play, kind: Kind, way: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = await _two(cluster)
        for host in hosts:
            host.freeze_engine()
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        busy, other = await _serving(hosts)
        await _strike(busy, way)
        other.thaw_engine()
        await _judge(cluster, kind, told, kind.streams)

    play(scenario, hasty=True)


@streamed_kinds
@pytest.mark.parametrize("way", ["dies", "freezes"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_after_the_first_token(play: Play, kind: Kind, stream: bool, way: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = await _two(cluster)
        told = ask(cluster, kind, 1, stream, "one", "r")
        busy, _ = await _serving(hosts)
        await until(lambda: any(served.output_tokens >= 3 for served in busy.meter.streams))
        await _strike(busy, way)
        await _judge(cluster, kind, told, stream)
        moves = cluster.gateway.metrics.moves.labels("m", "failure")._value.get()
        assert moves >= 1

    play(scenario, hasty=True)


def test_an_engine_that_has_not_got_the_request_yet_is_not_frozen(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = await _two(cluster)
        for name in ("first", "second"):
            assert (await ask(cluster, KINDS[0], 2, True, "two", name).done()).status == 200
        submitted: list[Any] = []
        for host in hosts:
            slow = _slowly(host.generator.submit, submitted)
            host.generator.submit = slow  # type: ignore[method-assign]
        told = ask(cluster, KINDS[0], 1, True, "one", "r")
        await _judge(cluster, KINDS[0], told, True)
        assert len(submitted) == 1

    play(scenario, hasty=True)


def _slowly(
    submit: Callable[..., Awaitable[Any]], seen: list[Any]
) -> Callable[..., Awaitable[Any]]:
    """As one whose grammar is tried, or whose adapter is loaded, for longer than any step."""

    async def submitted(*arguments: Any) -> Any:
        seen.append(arguments)
        await asyncio.sleep(2 * connection.STEP_S)
        return await submit(*arguments)

    return submitted


def test_a_frozen_replica_holds_up_nobody_else(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = await _two(cluster)
        told = ask(cluster, KINDS[0], 1, True, "one", "r")
        busy, _ = await _serving(hosts)
        await until(lambda: told.raw.count(b"data:") >= 3)
        busy.freeze()
        others = [ask(cluster, KINDS[0], 2 + i, True, "two", f"o{i}") for i in range(6)]
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        await asyncio.gather(*(other.done() for other in others))
        assert all(other.status == 200 for other in others)
        if cluster.virtual:
            # Those sent there before it was noticed move as its own stream does: it repeats its
            # load every second, and five times the longest silence so far is a failure.
            assert clock() - begun_s < 8.0
            ended = [other for other in others if other.headers["x-weir-replica"] != busy.name]
            assert ended
        await _judge(cluster, KINDS[0], told, True)

    play(scenario, hasty=True)


async def _strike(host: Host, way: str) -> None:
    if way == "dies":
        await host.kill()
    else:
        host.freeze()
