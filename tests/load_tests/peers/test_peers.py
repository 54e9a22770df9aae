"""Each peer keeps its published rule, and every system answers every request once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from load_tests.peers.aibrix import AibrixPrefixCache
from load_tests.peers.dynamo import DynamoKvRouter
from load_tests.peers.indexes import DispatchIndex, EventIndex
from load_tests.peers.llm_d import LlmD, LlmDPrecise
from load_tests.peers.oracle import Oracle, OracleRule, pooled_hit_rate
from load_tests.peers.ray_prefix import RayPrefixAffinity
from load_tests.peers.sglang import SglangCacheAware
from load_tests.peers.simple import CountingSystem, LeastRequests, PowerOfTwo, RoundRobin
from load_tests.sim.calibrations import H100_8B
from load_tests.sim.engine import Engine, EngineConfig
from load_tests.sim.events import EventQueue
from load_tests.sim.figures import Slo
from load_tests.sim.request import SimRequest
from load_tests.sim.run import run_open
from load_tests.sim.system import PolledStats, System
from load_tests.sim.world import FleetConfig
from load_tests.systems import ENTRIES
from load_tests.traces import Trace, TraceRequest

CONFIG = EngineConfig(200, 16, 256, 16, priority_scheduling=True)


class Desk:
    """A fleet that only writes down where requests were sent."""

    def __init__(self, replicas: int) -> None:
        self.rng = random.Random(1)
        self.now_s = 0.0
        self.sent: list[int] = []
        queue = EventQueue()
        self._engines = [Engine(i, CONFIG, H100_8B, queue, self) for i in range(replicas)]

    @property
    def engines(self) -> Sequence[Engine]:
        return self._engines

    def dispatch(self, request: SimRequest, replica: int, priority: int = 0) -> None:
        request.replica = replica
        request.dispatched_s = self.now_s
        self.sent.append(replica)

    def shed(self, request: SimRequest, reason: str) -> None:
        raise AssertionError(reason)

    def after(self, delay_s: float, call: Callable[[Any], None], argument: Any = None) -> None:
        raise AssertionError("no peer waits")

    def first_token(self, request: SimRequest) -> None:
        pass

    def finished(self, request: SimRequest) -> None:
        pass

    def kv_changed(self, replica: int, ops: list[Any]) -> None:
        pass


def request(index: int, hashes: tuple[int, ...] = (), prompt: int | None = None) -> SimRequest:
    return SimRequest(index, TraceRequest(0.0, prompt or 16 * len(hashes) + 1, 8, hashes), 0.0)


def put(system: System, desk: Desk, *hashes: int, prompt: int | None = None) -> int:
    """Send a request with these blocks; returns where it went."""
    system.arrive(request(len(desk.sent), hashes, prompt))
    return desk.sent[-1]


def started(system: System, replicas: int = 4) -> Desk:
    desk = Desk(replicas)
    system.start(desk)
    return desk


def test_round_robin_takes_turns() -> None:
    system = RoundRobin()
    desk = started(system, 3)
    assert [put(system, desk) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_power_of_two_never_takes_the_fuller_of_its_two() -> None:
    system = PowerOfTwo()
    desk = started(system, 2)
    for number in range(20):
        before = list(system.in_flight)
        chosen = put(system, desk)
        assert before[chosen] == min(before), number


def test_least_requests_counts_what_has_ended() -> None:
    system = LeastRequests()
    desk = started(system, 2)
    first = request(0)
    system.arrive(first)
    put(system, desk)
    system.finished(first)
    assert put(system, desk) == first.replica


def test_sglang_follows_the_match_above_its_threshold_only() -> None:
    system = SglangCacheAware()
    desk = started(system)
    home = put(system, desk, 1, 2, 3, 4)
    assert put(system, desk, 1, 2, 3, 9) == home  # 3 of 4
    assert put(system, desk, 1, 2, 50, 51, 52, 53, 54) != home  # 2 of 7: the least load, not home


def test_sglang_leaves_the_match_when_badly_imbalanced() -> None:
    system = SglangCacheAware()
    desk = started(system)
    home = put(system, desk, 1, 2)
    while max(system.in_flight) <= 64:
        assert put(system, desk, 1, 2) == home
    assert put(system, desk, 1, 2) != home


@pytest.mark.parametrize("with_ray", [True, False])
def test_ray_prefers_the_match_and_else_the_smallest_tree(
    with_ray: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_ray:
        pytest.importorskip("ray")
    else:
        monkeypatch.setattr("load_tests.peers.ray_prefix._ray_tree", lambda: None)
    system = RayPrefixAffinity()
    desk = started(system, 3)
    home = put(system, desk, *range(20))
    assert put(system, desk, 0, 1, 2, 50) == home
    small = {put(system, desk, *range(100, 110)), put(system, desk, *range(200, 210))}
    assert small == {0, 1, 2} - {home}  # one shared block of 25 is below 0.1, and home is largest
    assert put(system, desk, 0, *range(300, 324)) != home
    assert ("own tree" in system.name) != with_ray


def test_dynamo_weighs_prefill_against_overlap() -> None:
    system = DynamoKvRouter()
    desk = started(system, 2)
    system.kv_events(1, [(True, (1, 2, 3), None)])
    assert put(system, desk, 1, 2, 3, 4) == 1
    first = request(90, tuple(range(50, 90)))
    system.arrive(first)
    assert first.replica == 0
    assert put(system, desk, 1, 2, 3, 5) == 1
    system.kv_events(1, [(False, (1, 2, 3), None)])
    system.first_token(first)
    system.finished(first)
    assert put(system, desk, 1, 2, 3, 6) == 0  # nothing cached any more, and 1 is busier


def test_dynamo_holds_requests_when_every_worker_is_over_its_threshold() -> None:
    system = DynamoKvRouter()
    desk = started(system, 2)
    limit = 16 * CONFIG.max_batched_tokens
    waiting = [request(number, (), limit + 1) for number in range(3)]
    for each in waiting:
        system.arrive(each)
    assert len(desk.sent) == 2
    system.first_token(waiting[0])
    assert len(desk.sent) == 3


@pytest.mark.parametrize("kind", [LlmD, LlmDPrecise])
def test_llm_d_adds_its_three_scores(kind: type[LlmD]) -> None:
    system = kind()
    desk = started(system, 2)
    for replica, waiting, used in ((0, 0, 0), (1, 4, 100)):
        system.stats(PolledStats(replica, 0, waiting, used, 0.0))
    assert put(system, desk, 7, 8) == 0  # 2 + 2 against 0 + 1
    if isinstance(system, LlmDPrecise):
        system.kv_events(1, [(True, (1, 2, 3, 4), None)])
        # A full match is worth 3; queue and KV together lose 2 + 1 there: a tie.
        assert {put(system, desk, 1, 2, 3, 4) for _ in range(20)} == {0, 1}
        system.stats(PolledStats(1, 0, 4, 80, 0.0))
        assert put(system, desk, 1, 2, 3, 4) == 1


def test_aibrix_balances_first() -> None:
    system = AibrixPrefixCache()
    desk = started(system, 4)
    home = put(system, desk, 1, 2)
    sent = [put(system, desk, 1, 2) for _ in range(30)]
    assert sent[0] != home  # one request there is above mean + σ of 1, 0, 0, 0
    assert max(system.in_flight) - min(system.in_flight) <= 8


def test_the_oracle_knows_what_the_engines_hold() -> None:
    system = Oracle(OracleRule(waste=0.0))
    desk = started(system, 3)
    pool = desk.engines[2].pool
    pool.allocate(2)
    pool.store((1, 2))
    assert put(system, desk, 1, 2, 3) == 2


def test_pooled_hit_rate_counts_full_blocks_but_never_the_whole_prompt() -> None:
    same = TraceRequest(0.0, 32, 1, (1, 2))
    longer = TraceRequest(0.0, 40, 1, (1, 2))
    assert pooled_hit_rate([same, same], 10, 16) == 16 / 64
    assert pooled_hit_rate([same, longer], 10, 16) == 32 / 72
    assert pooled_hit_rate([same, longer], 1, 16) == 16 / 72  # the tail was dropped


def test_indexes_forget() -> None:
    sent = DispatchIndex(2, capacity=3)
    sent.add(0, (1, 2))
    sent.add(0, (8, 9))
    assert sent.match((1, 2)) == [1, 0]
    heard = EventIndex(1)
    heard.apply(0, [(True, (1, 2), None), (False, (2,), None)])
    assert heard.match((1, 2)) == [1]


def small_trace(count: int) -> Trace:
    rng = random.Random(5)
    requests = []
    for number in range(count):
        family = rng.randrange(6)
        shared = rng.randrange(1, 20)
        own = rng.randrange(0, 6)
        hashes = tuple(family * 100 + i for i in range(shared))
        hashes += tuple(10_000 + number * 10 + i for i in range(own))
        prompt = 16 * len(hashes) + rng.randrange(1, 16)
        requests.append(TraceRequest(number * 0.02, prompt, rng.randrange(1, 40), hashes))
    return Trace("small", "test", 16, tuple(requests))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_system_answers_every_request(name: str) -> None:
    trace = small_trace(150)
    fleet = FleetConfig(3, CONFIG, H100_8B)
    slo = Slo(5.0, 0.1)
    for factory in ENTRIES[name].factories:
        outcome = run_open(factory(slo), trace, fleet, 100.0, slo, seed=3)
        assert outcome.world.answered == 150
        assert all(r.finish_s is not None for r in outcome.world.requests)
        assert outcome.figures["shed_share"] == 0
        assert 0 <= outcome.figures["hit_rate"] < 1
        if ENTRIES[name].kind != "peer" or not issubclass(type(factory(slo)), CountingSystem):
            assert outcome.figures["hit_rate"] > 0
        for engine in outcome.world.engines:
            assert engine.pool.used == 0
