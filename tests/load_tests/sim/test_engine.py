"""The engine takes many decode steps at once; a naive one that takes them singly must agree."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.sim.blocks import KvOp
from load_tests.sim.engine import Engine, EngineConfig
from load_tests.sim.events import EventQueue
from load_tests.sim.request import SimRequest
from load_tests.sim.timing import StepTiming
from load_tests.traces import TraceRequest

TIMING = StepTiming("test", 7e-3, 3e-5, 1e-9, 2e-5, 5e-8)


class Ear:
    """Remembers what engines said."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.held: set[int] = set()

    def first_token(self, request: SimRequest) -> None:
        pass

    def finished(self, request: SimRequest) -> None:
        self.order.append(request.index)

    def kv_changed(self, replica: int, ops: list[KvOp]) -> None:
        for stored, hashes, parent in ops:
            if stored:
                assert parent is None or parent in self.held
                assert not self.held.intersection(hashes)
                self.held.update(hashes)
            else:
                assert self.held.issuperset(hashes)
                self.held.difference_update(hashes)


class SingleSteps(Engine):
    """Never takes two steps at once."""

    def _schedule(self, steps: int, duration_s: float) -> None:
        if steps > 1:
            decoding = self.decoding
            duration_s = self.timing.decode_s(1, len(decoding), decoding.context)
        super()._schedule(1, duration_s)


def play(
    kind: type[Engine], config: EngineConfig, arrivals: list[tuple[float, TraceRequest, int]]
) -> tuple[list[SimRequest], Engine, Ear]:
    queue, ear = EventQueue(), Ear()
    engine = kind(0, config, TIMING, queue, ear, log_kv=True)
    requests = []
    for index, (time_s, trace, priority) in enumerate(arrivals):
        request = SimRequest(index, trace, time_s)
        request.priority = priority
        requests.append(request)
        queue.at(time_s, engine.submit, request)
    queue.run()
    return requests, engine, ear


def workload(seed: int, count: int, spread_s: float) -> list[tuple[float, TraceRequest, int]]:
    rng = random.Random(seed)
    out = []
    for number in range(count):
        prompt = rng.randint(1, 400)
        family = rng.randint(0, 2)
        shared = rng.randint(0, prompt // 16)
        hashes = tuple(
            family * 1000 + i if i < shared else 10_000 + number * 100 + i
            for i in range(prompt // 16)
        )
        trace = TraceRequest(0.0, prompt, rng.randint(1, 120), hashes)
        out.append((rng.uniform(0, spread_s), trace, rng.randint(0, 2)))
    return sorted(out, key=lambda item: item[0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 25),
    spread_s=st.sampled_from([0.0, 0.5, 5.0]),
    blocks=st.sampled_from([34, 60, 400]),
    places=st.sampled_from([2, 8, 64]),
    priority=st.booleans(),
)
def test_runs_of_steps_equal_single_steps(
    seed: int, count: int, spread_s: float, blocks: int, places: int, priority: bool
) -> None:
    config = EngineConfig(blocks, 16, 128, places, priority)
    arrivals = workload(seed, count, spread_s)
    many, engine, ear = play(Engine, config, arrivals)
    single, slow, _ = play(SingleSteps, config, arrivals)
    for fast, naive in zip(many, single, strict=True):
        assert fast.first_token_s == pytest.approx(naive.first_token_s, rel=1e-9)
        assert fast.finish_s == pytest.approx(naive.finish_s, rel=1e-9)
        assert fast.cached_tokens == naive.cached_tokens
        assert fast.preemptions == naive.preemptions
    assert engine.busy_s == pytest.approx(slow.busy_s)
    assert engine.pool.used == 0
    assert sorted(ear.order) == list(range(count))
    assert len(ear.held) == engine.pool.cached


def test_a_request_alone_takes_its_steps() -> None:
    config = EngineConfig(100, 16, 128, 8)
    trace = TraceRequest(0.0, 300, 10)
    (request,), engine, _ = play(Engine, config, [(0.0, trace, 0)])
    prefill = TIMING.prefill_s(300, 0, 128)
    assert request.ttft_s == pytest.approx(prefill)
    assert request.finish_s == pytest.approx(prefill + TIMING.decode_s(9, 1, 300))
    assert engine.prefill_tokens == 300
    assert engine.decode_tokens == 9


def test_the_last_token_of_a_cached_prompt_is_computed_again() -> None:
    config = EngineConfig(100, 16, 128, 8)
    trace = TraceRequest(0.0, 64, 2, (1, 2, 3, 4))
    first, second = play(Engine, config, [(0.0, trace, 0), (9.0, trace, 0)])[0]
    assert first.cached_tokens == 0
    assert second.cached_tokens == 48  # a whole block, as vLLM does


def test_priority_overtakes_in_the_queue_and_survives_preemption() -> None:
    config = EngineConfig(20, 16, 64, 2, priority_scheduling=True)
    low = TraceRequest(0.0, 100, 150)
    high = TraceRequest(0.0, 100, 60)
    arrivals = [(0.0, low, 2), (0.01, low, 2), (0.02, low, 2), (0.03, high, 0)]
    requests, engine, _ = play(Engine, config, arrivals)
    assert requests[3].finish_s is not None
    assert requests[2].first_token_s is not None
    assert requests[3].first_token_s is not None
    assert requests[3].first_token_s < requests[2].first_token_s
    assert engine.preemptions > 0
    assert requests[3].preemptions == 0


def test_a_prompt_that_can_never_fit_is_an_error() -> None:
    config = EngineConfig(4, 16, 64, 2)
    with pytest.raises(RuntimeError, match="does not fit"):
        play(Engine, config, [(0.0, TraceRequest(0.0, 100, 1), 0)])
