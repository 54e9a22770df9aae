"""Schedules are data of a seed; played over the replica's stream server, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from deployments import wire
from deployments.gateway.transport import ChannelClosedError
from deployments.streams import Abort, Put, TokenStreams
from weir.testing.links import App, Direction, LinkSettings
from weir.testing.network import MemoryNetwork
from weir.testing.schedules import (
    MOMENTARY,
    OF_NODES,
    ONE_DIRECTION,
    Fault,
    Kind,
    Profile,
    Schedule,
    draw_schedule,
    play,
)
from weir.testing.virtual_time import run

_PROFILE = Profile(("gateway-0", "gateway-1"), ("a:1", "b:1", "c:1"))
_TOKENS = 100


def test_a_seed_is_a_schedule() -> None:
    assert draw_schedule(7, _PROFILE) == draw_schedule(7, _PROFILE)
    assert len({str(draw_schedule(seed, _PROFILE)) for seed in range(100)}) == 100


def test_schedules_have_every_kind_and_keep_to_the_profile() -> None:
    faults = [fault for seed in range(500) for fault in draw_schedule(seed, _PROFILE).faults]
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(Kind)
    assert max(counts.values()) < 2 * min(counts.values())
    assert 3 < len(faults) / 500 < 5
    for fault in faults:
        assert 0 <= fault.at_s <= _PROFILE.span_s
        assert (fault.duration_s == 0) == (fault.kind in MOMENTARY)
        assert (fault.gateway == "") == (fault.kind in OF_NODES)
        assert (fault.direction is None) == (fault.kind not in ONE_DIRECTION)


def test_nodes_are_left_untouched_where_the_profile_says_so() -> None:
    profile = Profile(
        ("g",), ("a", "b"), mean_faults=30, weights=((Kind.KILL, 1.0),), up_at_least=1
    )
    for seed in range(50):
        faults = draw_schedule(seed, profile).faults
        for fault in faults:
            down = {f.address for f in faults if f.at_s <= fault.at_s <= f.at_s + f.duration_s}
            assert len(down) == 1


def test_a_schedule_reads_well_and_can_be_made_smaller() -> None:
    schedule = Schedule(
        5,
        (
            Fault(1.5, Kind.FREEZE, "a:1", 2.0),
            Fault(2.25, Kind.STALL, "b:1", 0.5, "gateway-0", Direction.TO_REPLICA),
        ),
    )
    assert str(schedule).splitlines() == [
        "schedule of seed 5",
        "    1.500 s  freeze     a:1 for 2.000 s",
        "    2.250 s  stall      gateway-0 - b:1 to replica for 0.500 s",
    ]
    assert schedule.end_s == 3.5
    assert schedule.without(0).faults == schedule.faults[1:]


class _Counting:
    """Generates the numbers from 0, one every 20 ms."""

    def load(self) -> wire.Load:
        return wire.Load(0, 0, 0)

    def adapters(self) -> wire.Adapters | None:
        return None

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        async def generate() -> None:
            for number in range(request.sampling.max_tokens):
                await asyncio.sleep(0.02)
                put(wire.Chunk(request.stream, "", [number]))
            put(wire.Done(request.stream, "", [], "length", 1, 0, request.sampling.max_tokens))

        task = asyncio.get_running_loop().create_task(generate())

        async def abort() -> None:
            task.cancel()

        return abort


def _boot() -> App:
    streams = TokenStreams(_Counting())
    asyncio.get_running_loop().create_task(streams.tell_load_forever())
    return streams.serve


@dataclass
class _Outcome:
    whole: int = 0
    broken: int = 0
    refused: int = 0
    events: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.events.append((asyncio.get_running_loop().time(), what))


async def _ask(network: MemoryNetwork, gateway: str, address: str, outcome: _Outcome) -> None:
    """One request; its tokens must have neither a gap nor a repeat."""
    transport = network.transport(gateway)
    try:
        channel = await asyncio.wait_for(transport.connect(address, address), 5)
    except (ChannelClosedError, TimeoutError):
        outcome.refused += 1
        outcome.note(f"{gateway} {address} refused")
        return
    tokens: list[int] = []
    submit = wire.Submit(1, "r", [1], wire.Sampling(max_tokens=_TOKENS))
    done = False
    try:
        async with asyncio.timeout(30):
            await channel.send(wire.encode(submit))
            while not done:
                for event in wire.decode_from_replica(await channel.receive()):
                    if isinstance(event, wire.Chunk):
                        tokens += event.tokens
                    done = done or isinstance(event, wire.Done)
        outcome.whole += 1
    except (ChannelClosedError, TimeoutError):
        outcome.broken += 1
    finally:
        await channel.close()
    outcome.note(f"{gateway} {address} {len(tokens)}")
    assert tokens == list(range(len(tokens)))
    assert not done or len(tokens) == _TOKENS


def _play(seed: int) -> _Outcome:
    async def main() -> _Outcome:
        outcome = _Outcome()

        async def client(gateway: str, address: str) -> None:
            for _ in range(8):
                await _ask(network, gateway, address, outcome)

        settings = LinkSettings(silence_s=15.0)
        async with MemoryNetwork(ChannelClosedError, seed, settings) as network:
            for address in _PROFILE.addresses:
                network.add_node(address, _boot)
            async with asyncio.TaskGroup() as group:
                group.create_task(play(draw_schedule(seed, _PROFILE), network))
                for gateway in _PROFILE.gateways:
                    for address in _PROFILE.addresses:
                        group.create_task(client(gateway, address))
            assert network.open_channels() == []
        return outcome

    return run(main())


def test_played_schedules_break_some_streams_and_leave_nothing_behind() -> None:
    outcomes = [_play(seed) for seed in range(20)]
    assert all(o.whole + o.broken + o.refused == 48 for o in outcomes)
    assert sum(o.whole for o in outcomes) > 20 * 24
    assert sum(o.broken for o in outcomes) > 20
    assert sum(o.refused for o in outcomes) > 10


@pytest.mark.parametrize("seed", range(3))
def test_a_schedule_can_be_replayed(seed: int) -> None:
    assert _play(seed) == _play(seed)


def test_overlapping_faults_of_one_kind_are_one() -> None:
    async def main() -> list[bool]:
        async with MemoryNetwork(ChannelClosedError) as network:
            node = network.add_node("a:1", _boot)
            faults = (Fault(1, Kind.FREEZE, "a:1", 5), Fault(2, Kind.FREEZE, "a:1", 1))
            playing = asyncio.create_task(play(Schedule(0, faults), network))
            frozen = []
            for _ in range(7):
                await asyncio.sleep(0.99)
                frozen.append(node.frozen)
            await playing
            return frozen

    assert run(main()) == [False, True, True, True, True, True, False]
