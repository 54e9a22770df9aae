"""A client that leaves pays for what it was delivered, and frees everything it held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.testing.cluster import Cluster, until
from deployments.testing.judging import Owed, ask, owed
from deployments.testing.kinds import KINDS, Kind

Play = Callable[..., None]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
streamed_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)


@every_kind
def test_before_the_output(play: Play, kind: Kind) -> None:
    """The engines have the prompts, and have put out nothing: the prompts are billed."""

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        host.freeze_engine()
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        await until(lambda: len(host.meter.streams) == kind.choices)
        await told.leave()
        await cluster.idle()
        bill = cluster.bill("one")
        assert bill.output_tokens == 0
        whole = owed(cluster).prompt_tokens
        assert bill.prompt_tokens == whole
        assert bill.cached_tokens == 0

    play(scenario)


@every_kind
def test_in_the_queue(play: Play, kind: Kind) -> None:
    """No replica has heard of the request: nothing is billed."""

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        host.freeze_engine()
        first = ask(cluster, KINDS[0], 1, True, "two", "first")
        await until(lambda: len(host.meter.streams) == 1)
        told = ask(cluster, kind, 2, kind.streams, "one", "r")
        await until(lambda: len(cluster.model.dispatcher.queue) == kind.choices)
        await told.leave()
        await until(lambda: len(cluster.model.dispatcher.queue) == 0)
        assert cluster.model.dispatcher.queue.in_flight == 1
        host.thaw_engine()
        await first.done()
        await cluster.idle()
        assert len(host.meter.streams) == 1
        assert cluster.bill("one") == Owed().bill(cluster)

    play(scenario, admission={"limits": {"places": {"running": 1}}})


@streamed_kinds
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_in_the_output(play: Play, kind: Kind, stream: bool) -> None:
    """What was delivered to the gateway is billed, at most what the engines had generated when they
    were told; also of an answer that would have been sent whole."""

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a", interval_s=0.1)
        told = ask(cluster, kind, 1, stream, "one", "r")
        await until(lambda: len(host.meter.streams) == kind.choices)
        await until(lambda: min(served.output_tokens for served in host.meter.streams) >= 2)
        if stream:
            await until(lambda: told.raw.count(b"data:") >= 2 * kind.choices)
        await told.leave()
        await cluster.idle()
        generated, bill = owed(cluster), cluster.bill("one")
        assert 0 < bill.output_tokens <= generated.output_tokens
        if cluster.virtual:  # a busy machine may be late to tell the engines
            assert generated.output_tokens - bill.output_tokens <= kind.choices
        assert bill.prompt_tokens == generated.prompt_tokens
        assert not all(served.ended for served in host.meter.streams)

    play(scenario)


@every_kind
def test_after_the_output(play: Play, kind: Kind) -> None:
    """All of it was delivered: leaving then changes nothing."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        await told.done()
        await told.leave()
        await cluster.idle()
        assert cluster.bill("one") == owed(cluster).bill(cluster)

    play(scenario)
