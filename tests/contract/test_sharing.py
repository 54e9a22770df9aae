"""What requests of several tenants share: prefill room, replicas, cached prefixes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from deployments.testing.cluster import Cluster, until
from deployments.testing.judging import ask, owed
from deployments.testing.kinds import KINDS, Kind

Play = Callable[..., None]
BY_NAME = {kind.name: kind for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
streamed_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)
#: Kinds whose answers have eight tokens whatever is asked for.
SHORT = frozenset(
    {
        "tools-required",
        "tools-named",
        "json-schema",
        "messages-any",
        "messages-tool",
        "response-tools",
        "response-json-schema",
    }
)
STANDARD = {"x-weir-priority": "standard"}


@streamed_kinds
def test_the_first_token_frees_the_prefill(play: Play, kind: Kind) -> None:
    """Eight streams decode for long. Their prompts fill the prefill limit several times over, so
    each of them could start only because the one before it had been prefilled; and so does a small
    request of the class that keeps to its share."""

    async def scenario(cluster: Cluster) -> None:
        # Short answers take longer instead.
        short = kind.name in SHORT
        host = await cluster.add("a", interval_s=0.4 if short else 0.02)
        length: dict[str, Any] = {} if short else {kind.limit_field: 150}
        told = [ask(cluster, kind, i, True, "one", f"r{i}", **length) for i in range(8)]
        await until(lambda: len(host.meter.streams) == 8 * kind.choices)
        await until(lambda: all(served.output_tokens for served in host.meter.streams))
        small = ask(cluster, BY_NAME["chat"], 99, False, "two", "small", max_tokens=1)
        await small.done()
        assert small.status == 200
        assert not any(exchange.ended for exchange in told)
        for exchange in told:
            await exchange.leave()
        await cluster.idle()

    play(scenario, admission={"limits": {"prefill": {"tokens": 12}}})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_two_tenants_share_fairly(play: Play, kind: Kind) -> None:
    """One tenant chats, the other does this; both have more to do than the replica can take. Each
    is served the same, weighed as admission weighs it."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a", interval_s=0.002)
        numbers = itertools.count()

        over = False

        async def keep_asking(key: str, kind: Kind) -> None:
            while not over:
                n = next(numbers)
                await ask(cluster, kind, n, False, key, f"{key}{n}").done()

        work = [
            asyncio.ensure_future(keep_asking(key, each))
            for key, each in (("one", BY_NAME["chat"]), ("two", kind))
            for _ in range(12)
        ]
        await until(lambda: _served(cluster, "one") + _served(cluster, "two") > 4000, 60.0)
        shares = _served(cluster, "one") / _served(cluster, "two")
        over = True
        await asyncio.gather(*work)
        await cluster.idle()
        assert 0.6 < shares < 1.67

    play(scenario, admission={"limits": {"places": {"running": 4}}})


def _served(cluster: Cluster, tenant: str) -> float:
    """Weighted tokens that a tenant's finished requests have used."""
    bill = cluster.bill(tenant)
    fresh = bill.prompt_tokens - bill.cached_tokens
    return fresh + 0.1 * bill.cached_tokens + 2.0 * bill.output_tokens


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.name not in ("image", "ids")],
    ids=lambda kind: kind.name,
)
def test_the_second_request_hits_the_first_ones_prefix(play: Play, kind: Kind) -> None:
    """It goes to the replica that has the prefix, and what was cached is billed as such."""

    async def scenario(cluster: Cluster) -> None:
        hosts = [await cluster.add(name) for name in "abc"]
        await ask(cluster, kind, 1, kind.streams, "one", "r1").done()
        await cluster.idle()
        first = owed(cluster)
        before = cluster.bill("one")
        await ask(cluster, kind, 1, kind.streams, "one", "r2").done()
        await cluster.idle()
        homes = {s.request_id.replace("r2", "r1"): h for h in hosts for s in h.meter.of("r1")}
        again = {s.request_id: h for h in hosts for s in h.meter.of("r2")}
        if kind.choices == 1:
            assert again["r2"] is homes["r1"]
        bill = cluster.bill("one")
        saved = bill.cached_tokens - before.cached_tokens
        assert saved > before.cached_tokens
        assert bill == owed(cluster).bill(cluster)
        assert bill.cost_usd < 2 * first.bill(cluster).cost_usd

    play(scenario)


def test_tenants_do_not_hit_each_others_prefixes(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        for tenant in ("one", "two"):
            await ask(cluster, BY_NAME["chat"], 1, False, tenant, tenant).done()
        await cluster.idle()
        assert cluster.bill("two").cached_tokens == 0

    play(scenario)


def test_tenants_of_one_adapter_and_of_none_get_their_own_answers(play: Play) -> None:
    """Base and adapter, two tenants, the same prompts at the same time on two replicas."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        await cluster.add("b")
        told = []
        for number in range(12):
            for kind in (BY_NAME["chat"], BY_NAME["adapter"]):
                for tenant in ("one", "two"):
                    name = f"{kind.name}-{tenant}-{number}"
                    told.append(
                        (kind, number, ask(cluster, kind, number, False, tenant, name), name)
                    )
        for kind, number, exchange, name in told:
            await exchange.done()
            asked = [s.request for h in cluster.hosts.values() for s in h.meter.of(name)]
            assert len(asked) == 1
            adapter = getattr(asked[0], "adapter", None)
            assert (adapter is not None) == (kind.name == "adapter")
            answer = kind.read(bytes(exchange.raw), False)
            assert list(answer.said) == kind.rights(asked, number)
        await cluster.idle()

    play(scenario)
