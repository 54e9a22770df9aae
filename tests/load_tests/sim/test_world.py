"""Clients, figures and what load 1.0 means."""

from __future__ import annotations

import dataclasses

import pytest

from load_tests.peers.simple import LeastRequests, RoundRobin
from load_tests.sim.calibrations import H100_8B, H100_70B_TP4, load_timing, timing_form
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo, Window, figures, imbalance
from load_tests.sim.request import SimRequest
from load_tests.sim.run import Clock, check_fits, measure_saturation, run_at, run_closed, run_open
from load_tests.sim.system import BaseSystem
from load_tests.sim.timing import StepTiming
from load_tests.sim.world import FleetConfig, World
from load_tests.traces import Trace, TraceError, TraceRequest

SLO = Slo(1.0, 0.05)
FLEET = FleetConfig(2, EngineConfig(400, 16, 256, 16), H100_8B)


def open_trace(count: int, gap_s: float = 0.1) -> Trace:
    requests = tuple(TraceRequest(n * gap_s, 100 + n % 50, 10) for n in range(count))
    return Trace("open", "test", 16, requests)


def closed_trace(sessions: int) -> Trace:
    """Sessions of four turns, the third waiting for a branch beside the second."""
    requests: list[TraceRequest] = []
    runs = []
    for number in range(sessions):
        first = len(requests)
        hashes = tuple(number * 100 + i for i in range(12))
        waits = ((), ((first, 1.0),), ((first, 0.0),), ((first + 1, 0.5), (first + 2, 0.0)))
        for turn, after in enumerate(waits):
            tokens = 16 * (3 + 3 * turn)
            requests.append(
                TraceRequest(
                    0.0, tokens + 1, 5, hashes[: tokens // 16], session=str(number), after=after
                )
            )
        runs.append(tuple(range(first, first + 4)))
    return Trace("closed", "test", 16, tuple(requests), tuple(runs))


def test_an_open_loop_sends_at_the_recorded_times() -> None:
    world = World(RoundRobin(), FLEET, seed=0)
    world.run_open(open_trace(20))
    assert [r.arrival_s for r in world.requests] == pytest.approx([n * 0.1 for n in range(20)])
    assert world.answered == 20


def test_a_closed_loop_waits_for_answers_and_thinks() -> None:
    world = World(RoundRobin(), FLEET, seed=0)
    world.run_closed(closed_trace(3), users=1, horizon_s=60.0, ramp_s=0.0)
    first, second, third, fourth = sorted(world.requests[:4], key=lambda r: r.trace.prompt_tokens)
    assert first.finish_s is not None
    assert second.arrival_s == pytest.approx(first.finish_s + 1.0)
    assert third.arrival_s == pytest.approx(first.finish_s)
    assert second.finish_s is not None
    assert fourth.arrival_s == pytest.approx(second.finish_s + 0.5)
    assert fourth.finish_s is not None
    assert world.requests[4].arrival_s == pytest.approx(fourth.finish_s)


def test_the_second_lap_over_the_sessions_is_other_content() -> None:
    world = World(RoundRobin(), FLEET, seed=0)
    world.run_closed(closed_trace(2), users=1, horizon_s=60.0, ramp_s=0.0)
    seen = [r.trace.block_hashes for r in world.requests if len(r.trace.block_hashes) == 12]
    assert len(seen) > 4
    assert len({hashes[0] for hashes in seen}) == len(seen)


def test_the_same_seed_gives_the_same_run() -> None:
    def times() -> list[float | None]:
        world = World(LeastRequests(), FLEET, seed=4)
        world.run_closed(closed_trace(6), users=3, horizon_s=40.0, ramp_s=2.0)
        return [r.finish_s for r in world.requests]

    assert times() == times()


class Shedder(BaseSystem):
    """Refuses every third request; may try to answer one twice."""

    name = "shedder"
    twice = False

    def arrive(self, request: SimRequest) -> None:
        if request.index % 3 == 0:
            self.fleet.shed(request, "no")
            if self.twice:
                self.fleet.dispatch(request, 0)
        else:
            self.fleet.dispatch(request, 0)


def test_figures_count_what_arrived_in_the_window() -> None:
    world = World(Shedder(), FLEET, seed=0)
    world.run_open(open_trace(30))
    out = figures(world, SLO, Window(0.0, 3.0))
    assert out["requests"] == 30
    assert out["shed_share"] == pytest.approx(10 / 30)
    assert out["good_share"] == pytest.approx(20 / 30)
    assert out["goodput_req_per_s"] == pytest.approx(20 / 3)
    assert imbalance(world) == pytest.approx(2.0)
    assert figures(world, SLO, Window(0.0, 1.45))["requests"] == 15
    assert figures(world, Slo(1e-6, 1.0), Window(0.0, 3.0))["good_share"] == 0


def test_answering_twice_is_a_fault() -> None:
    system = Shedder()
    system.twice = True
    with pytest.raises(RuntimeError, match="twice"):
        World(system, FLEET, seed=0).run_open(open_trace(3))


def test_saturation_and_load_of_an_open_loop() -> None:
    trace = open_trace(400)
    saturation = measure_saturation(trace, FLEET, Clock(), seed=1)
    light = run_at(LeastRequests(), trace, FLEET, saturation, 0.3, SLO, Clock(), seed=1)
    heavy = run_at(LeastRequests(), trace, FLEET, saturation, 3.0, SLO, Clock(), seed=1)
    assert light.figures["offered_req_per_s"] == pytest.approx(0.3 * saturation.req_per_s, rel=0.02)
    assert light.figures["good_share"] == 1.0
    assert heavy.figures["ttft_p99_ms"] > 3 * light.figures["ttft_p99_ms"]


def test_saturation_of_a_closed_loop_is_a_number_of_users() -> None:
    clock = Clock(ramp_s=2.0, warm_s=5.0, horizon_s=30.0, grace_s=5.0)
    trace = closed_trace(40)
    saturation = measure_saturation(trace, FLEET, clock, seed=1)
    assert saturation.users > 2
    outcome = run_closed(LeastRequests(), trace, FLEET, 2, SLO, clock, seed=1)
    assert outcome.figures["good_share"] == 1.0


def test_what_cannot_fit_is_said_before_it_runs() -> None:
    long = Trace("long", "test", 16, (TraceRequest(0.0, 7000, 10),))
    with pytest.raises(TraceError, match="--blocks"):
        check_fits(long, FLEET)
    with pytest.raises(TraceError, match="blocks of 512"):
        check_fits(dataclasses.replace(open_trace(2), block_size=512), FLEET)
    with pytest.raises(TraceError, match="no sessions"):
        run_closed(RoundRobin(), open_trace(2), FLEET, 1, SLO, Clock(), seed=0)
    with pytest.raises(TraceError, match="closed-loop"):
        World(RoundRobin(), FLEET, 0).run_open(closed_trace(1))


def test_rates_are_what_was_asked_for() -> None:
    outcome = run_open(RoundRobin(), open_trace(100), FLEET, 5.0, SLO, seed=0)
    assert outcome.figures["offered_req_per_s"] == pytest.approx(5.0, rel=0.02)
    assert outcome.simulated_per_min > 0


@pytest.mark.parametrize("timing", [H100_8B, H100_70B_TP4])
@pytest.mark.parametrize("sequences", [1, 7, 200])
def test_the_closed_form_is_the_sum_of_its_steps(timing: StepTiming, sequences: int) -> None:
    context = 900.0 * sequences
    total = 0.0
    for step in range(1, 60):
        held = context + sequences * (step - 1)
        total += timing.step_s(0, 0.0, sequences, held)
        assert timing.decode_s(step, sequences, context) == pytest.approx(total)
        assert timing.steps_in(total, sequences, context) == step
        assert timing.steps_in(total * 1.0001, sequences, context) == step + 1


def test_calibrations_are_found_by_name_or_file(tmp_path: object) -> None:
    import json
    from pathlib import Path

    assert load_timing("h100-70b-tp4") is H100_70B_TP4
    path = Path(str(tmp_path)) / "mine.json"
    path.write_text(json.dumps({"timing": timing_form(H100_8B)}))
    assert load_timing(str(path)) == H100_8B
    with pytest.raises(ValueError, match="known: h100-8b"):
        load_timing("abacus")
