"""Engines that hand KV blocks over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.links import LINK_400G, Links
from load_tests.sim.request import SimRequest
from load_tests.sim.run import run_open
from load_tests.sim.system import BaseSystem
from load_tests.sim.timing import StepTiming
from load_tests.sim.weir_system import WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig, World
from load_tests.traces import Trace, TraceRequest
from router.types import ReplicaLoad, Role

TIMING = StepTiming("test", 1e-3, 1e-5, 0.0, 1e-5, 1e-8)
ENGINE = EngineConfig(blocks=400, block_size=16, max_batched_tokens=512, max_sequences=8)
FLEET = FleetConfig(2, ENGINE, TIMING)
SLO = Slo(5.0, 0.15)


def requests(count: int, gap_s: float, prompt: int = 1000, output: int = 20) -> Trace:
    """Prompts that share nothing."""
    made = [
        TraceRequest(i * gap_s, prompt, output, tuple(range(1000 * i, 1000 * i + prompt // 16)))
        for i in range(count)
    ]
    return Trace("pairs", "test", 16, tuple(made))


class AlwaysPair(BaseSystem):
    """Engine 0 prefills, engine 1 decodes."""

    def __init__(self) -> None:
        self.transfers: list[tuple[int, float]] = []

    def arrive(self, request: SimRequest) -> None:
        self.fleet.dispatch_pair(request, 0, 1)

    def transferred(self, request: SimRequest, tokens: int, transfer_s: float) -> None:
        self.transfers.append((tokens, transfer_s))


def test_the_first_token_waits_for_prompt_transfer_and_one_step() -> None:
    system = AlwaysPair()
    world = World(system, FLEET, 1)
    world.run_open(requests(1, 1.0))
    (request,) = world.requests
    prefill_s = 2 * TIMING.fixed_s + 1000 * TIMING.prefill_token_s
    transfer_s = 1000 * LINK_400G.token_bytes / LINK_400G.bytes_per_s + LINK_400G.latency_s
    assert system.transfers == [(1000, pytest.approx(transfer_s))]
    step_s = TIMING.fixed_s + TIMING.prefill_token_s
    assert request.ttft_s == pytest.approx(prefill_s + transfer_s + step_s)
    assert request.generated == 20
    assert world.engines[0].prefill_tokens == 1000
    assert world.engines[1].prefill_tokens == 1


def test_blocks_that_the_decode_engine_holds_are_not_moved() -> None:
    system = AlwaysPair()
    same = requests(1, 1.0).requests[0]
    trace = Trace("same", "test", 16, (same, replace(same, arrival_s=9.0)))
    World(system, FLEET, 1).run_open(trace)
    assert [tokens for tokens, _ in system.transfers] == [1000, 1000 - 62 * 16]


def test_a_link_carries_one_transfer_at_a_time() -> None:
    links = Links(LINK_400G, 3)
    alone_s = links.begin(0.0, 0, 2, 1000) - LINK_400G.latency_s
    assert links.begin(0.0, 1, 2, 1000) == pytest.approx(2 * alone_s + LINK_400G.latency_s)
    assert links.begin(9.0, 1, 2, 1000) == pytest.approx(alone_s + LINK_400G.latency_s)


def test_running_answers_are_not_delayed_by_prompts_elsewhere() -> None:
    first, *rest = requests(12, 0.02, prompt=4000, output=2).requests
    trace = Trace("t", "test", 16, (replace(first, prompt_tokens=64, output_tokens=200), *rest))
    slow = {}
    for name, system in (("pair", AlwaysPair()), ("whole", OnOne())):
        world = World(system, FLEET, 1)
        world.run_open(trace)
        slow[name] = world.requests[0].tpot_s or 0.0
    assert slow["pair"] < 0.6 * slow["whole"]


class OnOne(BaseSystem):
    """Everything on engine 1."""

    def arrive(self, request: SimRequest) -> None:
        self.fleet.dispatch(request, 1)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 300)), min_size=1, max_size=40),
    gap_s=st.sampled_from([0.0, 0.003, 0.05]),
    priority=st.booleans(),
)
def test_every_request_ends_and_no_block_is_kept(
    sizes: Sequence[tuple[int, int]], gap_s: float, priority: bool
) -> None:
    made = [
        TraceRequest(
            i * gap_s, prompt, output, tuple(range(9000 * (i % 5), 9000 * (i % 5) + prompt // 16))
        )
        for i, (prompt, output) in enumerate(sizes)
    ]
    fleet = replace(FLEET, engine=replace(ENGINE, priority_scheduling=priority))
    world = World(AlwaysPair(), fleet, 1)
    world.run_open(Trace("t", "test", 16, tuple(made)))
    assert [r.generated for r in world.requests] == [output for _, output in sizes]
    assert [(e.pool.used, e.running, e.waiting) for e in world.engines] == [(0, 0, 0)] * 2


@pytest.mark.parametrize("rule", ["adaptive", "always", "dynamo", "llm-d", "never"])
def test_weirs_own_dispatcher_frees_everything(rule: str) -> None:
    roles: tuple[Role, ...] = ("prefill", "decode", "decode", "mixed")
    profile = routing_profile(SLO)
    system = WeirSystem(replace(profile, routing=replace(profile.routing, rule=rule)))
    fleet = FleetConfig(4, replace(ENGINE, priority_scheduling=True), TIMING, roles)
    outcome = run_open(system, requests(300, 0.01), fleet, 60.0, SLO, seed=2)
    assert outcome.world.answered == 300
    for seen in system.router.snapshot().replicas:
        assert seen.load == ReplicaLoad()
    assert all(engine.pool.used == 0 for engine in outcome.world.engines)
    split = [request for request in outcome.world.requests if request.paired]
    assert (rule == "never") is not bool(split) or rule == "adaptive"
