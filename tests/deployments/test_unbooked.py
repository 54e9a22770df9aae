"""What an engine has counted reaches a ledger, whatever becomes of the gateway that asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from deployments import wire
from deployments.gateway.app import GatewayApp
from deployments.gateway.building import build_gateway
from deployments.gateway.handle import Gateway
from deployments.gateway.prompts import PromptEncoder
from deployments.streams import TokenStreams
from deployments.stub_generator import StubGenerator
from deployments.testing.cluster import SilentFeed, no_page
from deployments.testing.exchange import MemoryExchange
from deployments.testing.in_memory import MemoryCluster, memory_cluster
from deployments.testing.recording import RecordingLedger
from deployments.testing.world import CancelOnDisconnect, PlainEnricher, memory_responses
from deployments.unbooked import BOUND_S, leaving_in
from tests.deployments.test_streams import Gateway as Connection
from tests.deployments.test_streams import submit
from weir.errors import BadRequestError
from weir.ledger import Loss, Part, UsageRecord
from weir.ledger.frames import unpack
from weir.ledger.outbox import adopt
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time


def origin(leg: str) -> wire.Origin:
    return wire.Origin(leg, "r1", "t", "k", "m", "m", "", "", "a", "batch", "chat", batch=True)


def owed(connection: Connection) -> dict[str, wire.Owed]:
    return {m.origin.leg: m for m in connection.got if isinstance(m, wire.Owed)}


async def soon(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.001)


async def test_what_is_not_booked_is_handed_to_who_connects_next() -> None:
    streams = TokenStreams(StubGenerator(0.001))
    first = Connection(streams)
    first.send(submit(1, origin=origin("s.0.0.0")))
    first.send(submit(2, origin=origin("s.0.1.0")))
    first.send(submit(3, tokens=10_000, origin=origin("s.0.2.0")))
    first.send(submit(4))
    await first.ended(1)
    await first.ended(2)
    await first.ended(4)
    first.send(wire.Booked([1]))
    await soon(lambda: first.of(3))
    await first.close()
    assert streams.unbooked.waiting == 2
    second = Connection(streams)
    await soon(lambda: len(owed(second)) == 2)
    whole, broken = owed(second)["s.0.1.0"], owed(second)["s.0.2.0"]
    assert (whole.prompt_tokens, whole.output_tokens) == (4, 3)
    assert broken.output_tokens > 0
    assert whole.origin == origin("s.0.1.0")
    assert 0 <= whole.ended_ago_s <= whole.began_ago_s
    # Until it is confirmed, it is told again.
    second.send(wire.Booked(legs=["s.0.1.0"]))
    await asyncio.sleep(0.01)
    await second.close()
    third = Connection(streams)
    await soon(lambda: owed(third))
    assert set(owed(third)) == {"s.0.2.0"}
    await third.close()


async def test_it_is_handed_to_who_is_connected() -> None:
    streams = TokenStreams(StubGenerator(0.001))
    first, second = Connection(streams), Connection(streams)
    await soon(lambda: second.loads)
    first.send(submit(1, origin=origin("s.0.0.0")))
    await first.ended(1)
    await first.close()
    await soon(lambda: owed(second))
    assert streams.unbooked.waiting == 0
    await second.close()


async def test_what_was_never_started_is_not_owed() -> None:
    class Refusing(StubGenerator):
        async def submit(self, request: wire.Submit, put: Any) -> Any:
            raise BadRequestError("no")

    streams = TokenStreams(Refusing(0.0))
    first = Connection(streams)
    first.send(submit(1, origin=origin("s.0.0.0")))
    await first.ended(1)
    await first.close()
    assert streams.unbooked.waiting == 0


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_what_nobody_confirms_in_time_is_left_in_the_ledgers_folder(tmp_path: Path) -> None:
    leave = leaving_in(str(tmp_path), lambda: 1000.0)
    streams = TokenStreams(StubGenerator(0.001), leave=leave)
    first = Connection(streams)
    first.send(submit(1, origin=origin("s.0.0.0")))
    await first.ended(1)
    await first.close()
    streams.unbooked.sweep()
    assert streams.unbooked.waiting == 1
    streams.unbooked._clock = lambda: asyncio.get_running_loop().time() + BOUND_S
    streams.unbooked.sweep()
    assert streams.unbooked.waiting == 0
    (record,) = left_in(tmp_path)
    assert (record.leg, record.part, record.loss) == ("s.0.0.0o", Part.ORPHAN, Loss.ORPHANED)
    assert (record.tenant, record.batch, record.billed, record.nano_usd) == ("t", True, False, 0)
    assert (record.prompt_tokens, record.output_tokens) == (4, 3)
    assert record.started_ms <= record.ended_ms <= 1_000_000


async def test_a_replica_that_ends_leaves_all_of_it(tmp_path: Path) -> None:
    streams = TokenStreams(StubGenerator(0.001), leave=leaving_in(str(tmp_path)))
    first = Connection(streams)
    first.send(submit(1, origin=origin("s.0.0.0")))
    first.send(submit(2, tokens=10_000, origin=origin("s.0.1.0")))
    await first.ended(1)
    await streams.close()
    assert {record.leg for record in left_in(tmp_path)} == {"s.0.0.0o", "s.0.1.0o"}
    await first.close()


def left_in(folder: Path) -> list[UsageRecord]:
    """What whoever takes the outboxes over finds in them."""
    found: list[UsageRecord] = []
    for outbox in adopt(folder):
        while (batch := outbox.read(32_768)) is not None:
            found += [e for e in unpack(batch.frames) if isinstance(e, UsageRecord)]
        outbox.close()
    return found


# A gateway is killed, in virtual time.

SEEDS = 60


class _Mortal(RecordingLedger):
    """Takes nothing once its process is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.dead = False

    def note(self, records: Sequence[UsageRecord]) -> None:
        if not self.dead:
            super().note(records)


def settings() -> Settings:
    return Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key("t"),)),),
    )


async def _second_gateway(
    cluster: MemoryCluster, encoder: PromptEncoder, ledger: RecordingLedger, seed: int
) -> tuple[Gateway, Any]:
    rng = random.Random(f"second|{seed}")
    gateway = build_gateway(
        settings(),
        {"m": encoder},
        cluster.network.transport("second"),
        SilentFeed(),
        PlainEnricher(),
        GatewayMetrics(CollectorRegistry()),
        rng=rng,
        ids=lambda: f"{rng.getrandbits(64):016x}",
        wall_clock=asyncio.get_running_loop().time,
        ledger=ledger,
    )
    gateway.models["m"].router.set_replicas(cluster.model.router.members)
    responses = memory_responses(gateway, settings())
    return gateway, CancelOnDisconnect(GatewayApp(gateway, responses, no_page))


async def _killed(encoder: PromptEncoder, seed: int) -> int:
    """How many legs were told by replicas."""
    rng = random.Random(seed)
    async with memory_cluster(settings(), encoder, seed) as cluster:
        for name in ("a", "b"):
            await cluster.add(name, rng.choice((0.01, 0.03)))
        ledger = _Mortal()
        gateway, app = await _second_gateway(cluster, encoder, ledger, seed)
        for name in ("a", "b"):
            await gateway.models["m"].fleet.connection(name)
        asked = []
        for number in range(rng.randint(3, 12)):
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": f"hello {number}"}],
                "max_tokens": rng.randint(1, 40),
                "n": rng.choice((1, 1, 2)),
                "stream": rng.random() < 0.5,
            }
            head = {"authorization": "Bearer t"}
            asked.append(MemoryExchange(app).ask("/v1/chat/completions", body, head))
            await asyncio.sleep(rng.uniform(0.0, 0.05))
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        if rng.random() < 0.3:
            await asked[0].leave()  # its last word may be on its way when the gateway dies
        ledger.dead = True
        for name in ("a", "b"):
            link = cluster.network.link("second", name)
            link.refuses = True
            link.reset()
        await asyncio.sleep(5.0)
        everything = RecordingLedger()
        everything.note([*ledger.records, *cluster.ledger.records])
        meters = {name: host.meter for name, host in cluster.hosts.items()}
        assert not everything.wrong(meters, ())
        for exchange in asked:
            await exchange.leave()
        await gateway.models["m"].close()
        return sum(record.part is Part.ORPHAN for record in cluster.ledger.records)


def test_a_killed_gateways_legs_are_in_the_other_ones_ledger(encoder: PromptEncoder) -> None:
    told = sum(virtual_time.run(_killed(encoder, seed)) for seed in range(SEEDS))
    assert told > SEEDS


@pytest.mark.parametrize("booked", [True, False])
async def test_a_gateway_confirms_what_it_has_booked(encoder: PromptEncoder, booked: bool) -> None:
    """With nothing left to be told once all is booked; without a ledger nothing is kept."""

    async def run() -> int:
        async with memory_cluster(settings(), encoder) as cluster:
            if not booked:
                cluster.gateway._attempts._generation._books = False
            host = await cluster.add("a")
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "n": 3}
            await cluster.ask("/v1/chat/completions", body | {"max_tokens": 4}, "t").done()
            leaves = cluster.ask("/v1/chat/completions", body | {"stream": True}, "t")
            await asyncio.sleep(0.05)
            await leaves.leave()
            await asyncio.sleep(1.0)
            (connection,) = host.streams._connections
            assert len(connection.books._streams) == 0
            assert not connection.books.handed
            return len(cluster.ledger.records)

    records = await asyncio.to_thread(lambda: virtual_time.run(run()))
    assert records >= 6
