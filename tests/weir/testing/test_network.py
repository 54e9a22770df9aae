"""The replica's own stream server over the network in memory, and what can befall it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from deployments import wire
from deployments.gateway.transport import Channel, ChannelClosedError, ReplicaTransport
from deployments.streams import Abort, Put, TokenStreams
from weir.testing.links import App, Direction, Latency, LinkSettings
from weir.testing.network import MemoryNetwork
from weir.testing.virtual_time import DeadlockError, run

T = TypeVar("T")

_STEP_S = 0.02
_HERE = "replica-0:1"


class Counting:
    """Generates the numbers from 0, one each step."""

    def __init__(self) -> None:
        self.running = 0
        self.steps = 0

    def load(self) -> wire.Load:
        return wire.Load(self.running, 0, 0)

    def adapters(self) -> wire.Adapters | None:
        return None

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        task = asyncio.get_running_loop().create_task(self._generate(request, put))

        async def abort() -> None:
            task.cancel()

        return abort

    async def _generate(self, request: wire.Submit, put: Put) -> None:
        self.running += 1
        count = request.sampling.max_tokens
        try:
            for number in range(count - 1):
                await asyncio.sleep(_STEP_S)
                self.steps += 1
                put(wire.Chunk(request.stream, "", [number]))
            put(wire.Done(request.stream, "", [count - 1], "length", 1, 0, count))
        finally:
            self.running -= 1


class Replica:
    """Boots of one replica; ``generators`` has one for each."""

    def __init__(self) -> None:
        self.generators: list[Counting] = []

    def boot(self) -> App:
        self.generators.append(Counting())
        streams = TokenStreams(self.generators[-1])
        asyncio.get_running_loop().create_task(streams.tell_load_forever())
        return streams.serve


def _submit(stream: int, tokens: int) -> bytes:
    return wire.encode(wire.Submit(stream, f"r{stream}", [1], wire.Sampling(max_tokens=tokens)))


async def _read(channel: Channel, into: list[int]) -> None:
    """Token ids of stream 1, to its end."""
    while True:
        for event in wire.decode_from_replica(await channel.receive()):
            if isinstance(event, wire.Chunk | wire.Done) and event.stream == 1:
                into += event.tokens
                if isinstance(event, wire.Done):
                    return


async def _connect(network: MemoryNetwork, gateway: str = "gateway-0") -> Channel:
    transport: ReplicaTransport = network.transport(gateway)
    return await transport.connect("replica-0", _HERE)


def simulate(
    scenario: Callable[[MemoryNetwork, Replica], Coroutine[Any, Any, T]],
    settings: LinkSettings | None = None,
    seed: int = 0,
) -> T:
    """Run a scenario with one replica; every channel must have been closed."""

    async def main() -> T:
        async with MemoryNetwork(ChannelClosedError, seed, settings) as network:
            replica = Replica()
            network.add_node(_HERE, replica.boot)
            result = await scenario(network, replica)
            assert network.open_channels() == []
            traffic = network.counts.traffic
            assert traffic.delivered + traffic.dropped <= traffic.sent
            return result

    return run(main())


def test_a_stream_arrives_whole_and_in_order() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> list[int]:
        channel = await _connect(network)
        await channel.send(_submit(1, 500))
        tokens: list[int] = []
        await _read(channel, tokens)
        await channel.close()
        await channel.close()
        return tokens

    jumpy = LinkSettings(Latency(extra_s=0.05, late_share=0.05))
    assert simulate(scenario, jumpy) == list(range(500))


def test_closing_frees_what_the_replica_generates() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        await channel.send(_submit(1, 1_000_000))
        await asyncio.sleep(1)
        assert replica.generators[0].running == 1
        await channel.close()
        await asyncio.sleep(1)
        assert replica.generators[0].running == 0
        with pytest.raises(ChannelClosedError):
            await channel.send(b"")
        with pytest.raises(ChannelClosedError):
            await channel.receive()

    simulate(scenario)


@pytest.mark.parametrize("reset", [False, True])
def test_a_killed_replica_breaks_its_channels_and_forgets(reset: bool) -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> list[int]:
        channel = await _connect(network)
        await channel.send(_submit(1, 1_000))
        tokens: list[int] = []
        reading = asyncio.create_task(_read(channel, tokens))
        await asyncio.sleep(1)
        network.node(_HERE).kill(reset=reset)
        with pytest.raises(ChannelClosedError, match="killed"):
            await reading
        await channel.close()
        with pytest.raises(ChannelClosedError, match="refused"):
            await _connect(network)
        network.node(_HERE).start()
        again = await _connect(network)
        assert [generator.running for generator in replica.generators] == [0, 0]
        await again.close()
        return tokens

    tokens = simulate(scenario)
    assert tokens == list(range(len(tokens)))
    assert 40 <= len(tokens) <= 50


@pytest.mark.parametrize("reset", [False, True])
def test_what_a_killed_replica_had_sent_arrives_unless_it_is_reset(reset: bool) -> None:
    slow = LinkSettings(Latency(least_s=2.0, extra_s=0.0))

    async def arrived(network: MemoryNetwork, replica: Replica) -> int:
        channel = await _connect(network)
        await channel.send(_submit(1, 1_000))
        await asyncio.sleep(10)
        network.node(_HERE).kill(reset=reset)
        tokens: list[int] = []
        with pytest.raises(ChannelClosedError, match="killed"):
            await _read(channel, tokens)
        await channel.close()
        return replica.generators[0].steps - len(tokens)

    under_way = 2.0 / _STEP_S
    lost = simulate(arrived, slow)
    assert lost == (pytest.approx(under_way, abs=2) if reset else 0)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_reset_is_known_to_both_sides_at_once(direction: Direction) -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        await channel.send(_submit(1, 1_000))
        await asyncio.sleep(1)
        link = network.link("gateway-0", _HERE)
        link.stall(direction)
        link.reset()
        with pytest.raises(ChannelClosedError, match="reset"):
            await channel.send(b"")
        await asyncio.sleep(0.001)
        assert replica.generators[0].running == 0
        with pytest.raises(ChannelClosedError, match="reset"):
            await _read(channel, [])
        await channel.close()

    simulate(scenario)


def test_a_connection_that_both_sides_left_is_gone() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        link = network.link("gateway-0", _HERE)
        for direction in Direction:
            link.stall(direction)
        await channel.close()
        assert len(link.connections) == 1  # the replica does not know
        network.node(_HERE).kill()
        assert len(link.connections) == 0

    simulate(scenario)


def test_a_frozen_replica_does_nothing_until_it_is_resumed() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> list[int]:
        channel = await _connect(network)
        await channel.send(_submit(1, 100))
        tokens: list[int] = []
        reading = asyncio.create_task(_read(channel, tokens))
        await asyncio.sleep(1)
        node = network.node(_HERE)
        node.freeze()
        steps = replica.generators[0].steps
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await _connect(network)
        await asyncio.sleep(100)
        assert replica.generators[0].steps == steps
        assert len(tokens) <= steps
        node.resume()
        await reading
        await channel.close()
        return tokens

    assert simulate(scenario) == list(range(100))


def test_a_frozen_replica_can_be_killed() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        network.node(_HERE).freeze()
        await asyncio.sleep(1)
        network.node(_HERE).kill()
        with pytest.raises(ChannelClosedError, match="killed"):
            await _read(channel, [])
        await channel.close()

    simulate(scenario)


def test_a_sender_waits_for_a_frozen_receiver() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        network.node(_HERE).freeze()

        async def send_forever() -> None:
            while True:
                await channel.send(_submit(1, 1))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_forever(), 60)
        assert network.counts.traffic.sent < 1_000
        await channel.close()

    simulate(scenario, LinkSettings(window_bytes=4_096))


def test_silence_breaks_a_connection_where_pings_are_sent() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> float:
        channel = await _connect(network)
        start_s = asyncio.get_running_loop().time()
        network.node(_HERE).freeze()
        with pytest.raises(ChannelClosedError, match="no answer"):
            await _read(channel, [])
        await channel.close()
        network.node(_HERE).resume()
        await asyncio.sleep(1)
        return asyncio.get_running_loop().time() - start_s

    assert simulate(scenario, LinkSettings(silence_s=15.0)) == pytest.approx(16, abs=0.1)


def test_a_connection_that_answers_again_in_time_stays() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        await (await _connect(network, "gateway-1")).close()
        await asyncio.sleep(100)
        network.node(_HERE).freeze()
        await asyncio.sleep(10)
        network.node(_HERE).resume()
        await asyncio.sleep(100)
        tokens: list[int] = []
        await channel.send(_submit(1, 10))
        await _read(channel, tokens)
        assert tokens == list(range(10))
        await channel.close()

    simulate(scenario, LinkSettings(silence_s=15.0))


def test_connects_are_refused_or_hang() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        link = network.link("gateway-0", _HERE)
        link.refuses = True
        with pytest.raises(ChannelClosedError, match="refused"):
            await _connect(network)
        other = await _connect(network, "gateway-1")
        await other.close()
        link.refuses, link.black_hole = False, True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_connect(network), 5)
        with pytest.raises(ChannelClosedError, match="refused"):
            await network.transport("gateway-0").connect("nobody", "nowhere:1")
        counts = network.counts
        assert (counts.connects, counts.refused, counts.hung, counts.opened) == (4, 2, 1, 1)

    simulate(scenario)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_stalled_direction_delivers_late(direction: Direction) -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> list[int]:
        channel = await _connect(network)
        link = network.link("gateway-0", _HERE)
        link.stall(direction)
        await channel.send(_submit(1, 50))
        tokens: list[int] = []
        reading = asyncio.create_task(_read(channel, tokens))
        await asyncio.sleep(10)
        assert tokens == []
        reached = direction is Direction.TO_GATEWAY
        assert (replica.generators[0].steps == 49) == reached
        link.flow(direction)
        await reading
        await channel.close()
        return tokens

    assert simulate(scenario) == list(range(50))


@pytest.mark.parametrize("direction", list(Direction))
def test_a_lost_message_breaks_the_connection_later(direction: Direction) -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        await channel.send(_submit(1, 10_000))
        await asyncio.sleep(1)
        start_s = asyncio.get_running_loop().time()
        network.link("gateway-0", _HERE).lose(direction, 3.0)
        with pytest.raises(ChannelClosedError, match="lost"):
            await _read(channel, [])
        assert asyncio.get_running_loop().time() - start_s == pytest.approx(3.0)
        await asyncio.sleep(1)
        assert replica.generators[0].running == 0
        await channel.close()

    simulate(scenario)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_half_closed_connection_ends(direction: Direction) -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> None:
        channel = await _connect(network)
        await channel.send(_submit(1, 10_000))
        await asyncio.sleep(1)
        network.link("gateway-0", _HERE).half_close(direction)
        with pytest.raises(ChannelClosedError):
            await _read(channel, [])
        await channel.close()
        await asyncio.sleep(1)
        assert replica.generators[0].running == 0

    simulate(scenario)


def test_shares_of_lost_messages_break_connections_and_nothing_has_a_gap() -> None:
    async def scenario(network: MemoryNetwork, replica: Replica) -> int:
        broken = 0
        for _ in range(20):
            channel = await _connect(network)
            await channel.send(_submit(1, 100))
            tokens: list[int] = []
            try:
                await _read(channel, tokens)
            except ChannelClosedError:
                broken += 1
            assert tokens == list(range(len(tokens)))
            await channel.close()
        return broken

    settings = LinkSettings(Latency(extra_s=0.01), loss_share=0.005)
    assert 1 <= simulate(scenario, settings) <= 19


async def _busy(network: MemoryNetwork, replica: Replica) -> list[tuple[float, str, int]]:
    """Three gateways with four streams each; what arrived and when."""
    log: list[tuple[float, str, int]] = []

    async def gateway(name: str) -> None:
        channel = await _connect(network, name)
        for number in range(1, 5):
            await channel.send(_submit(number, 20 * number))
        left = 4
        while left:
            for event in wire.decode_from_replica(await channel.receive()):
                if not isinstance(event, wire.Load):
                    assert not isinstance(event, wire.Embedded)
                    left -= isinstance(event, wire.Done)
                    log.append((asyncio.get_running_loop().time(), name, event.stream))
        await channel.close()

    await asyncio.gather(*(gateway(f"gateway-{number}") for number in range(3)))
    return log


def test_the_seed_decides_everything() -> None:
    settings = LinkSettings(Latency(extra_s=0.02, late_share=0.01))
    first, again, other = (simulate(_busy, settings, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_fault_on_one_link_changes_no_draw_on_another() -> None:
    async def scenario(network: MemoryNetwork, *, slow: bool) -> list[float]:
        if slow:
            link = network.link("gateway-1", _HERE)
            link.settings = replace(link.settings, latency=Latency(0.5, 0.5))
        other = asyncio.create_task(_connect(network, "gateway-1"))
        times = []
        for _ in range(5):
            await (await _connect(network)).close()
            times.append(asyncio.get_running_loop().time())
        await (await other).close()
        return times

    usual, beside = (
        simulate(lambda network, _, slow=slow: scenario(network, slow=slow))
        for slow in (False, True)
    )
    assert usual == beside


def test_a_channel_that_is_left_open_is_told() -> None:
    with pytest.raises(AssertionError, match="gateway-0 - replica-0:1 #1"):
        simulate(lambda network, _: _connect(network))


def test_waiting_for_a_black_hole_without_a_bound_is_a_deadlock() -> None:
    async def main() -> None:
        async with MemoryNetwork(ChannelClosedError) as network:
            network.link("gateway-0", _HERE).black_hole = True
            await _connect(network)

    with pytest.raises(DeadlockError):
        run(main())
