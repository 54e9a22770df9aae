"""Several gateways in the simulator: everything is answered once, and sharing keeps them apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from load_tests.sim.calibrations import load_timing
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.gateways import SeveralGateways
from load_tests.sim.run import Outcome, run_open
from load_tests.sim.weir_system import WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig
from load_tests.traces.schema import Trace, TraceRequest

SLO = Slo(5.0, 0.15)
FLEET = FleetConfig(4, EngineConfig(4096, 64, 2048, 256, True), load_timing("h100-8b"))


def trace(count: int) -> Trace:
    requests = tuple(
        TraceRequest(
            arrival_s=0.02 * number,
            prompt_tokens=1280,
            output_tokens=20,
            block_hashes=tuple(range(1000 * number, 1000 * number + 20)),
        )
        for number in range(count)
    )
    return Trace("made up", "test", 64, requests)


def run(count: int, **more: Any) -> Outcome:
    system = SeveralGateways(lambda: WeirSystem(routing_profile(SLO)), count, **more)
    return run_open(system, trace(200), FLEET, 50.0, SLO, seed=3)


@pytest.mark.parametrize("restart_at_s", [None, 1.0])
def test_every_request_is_answered_and_nothing_is_left(restart_at_s: float | None) -> None:
    outcome = run(3, restart_at_s=restart_at_s)
    assert all(request.dispatched_s is not None for request in outcome.world.requests)
    system: Any = outcome.world.system
    for gateway in system._everyone:
        for replica in range(4):
            assert gateway.router.own_load(f"r{replica}").requests == 0


def test_a_restarted_gateway_knows_what_the_replicas_hold() -> None:
    outcome = run(2, restart_at_s=2.0)
    system: Any = outcome.world.system
    fresh, sibling = system._gateways
    held = {replica: fresh.router.index.blocks(replica) for replica in ("r0", "r1", "r2", "r3")}
    assert sum(held.values()) > 0
    assert held == {replica: sibling.router.index.blocks(replica) for replica in held}


def test_gateways_that_share_spread_the_work_as_one_does() -> None:
    def spread(outcome: Outcome) -> int:
        counts = Counter(request.replica for request in outcome.world.requests)
        return max(counts.values()) - min(counts.values())

    assert spread(run(4)) <= spread(run(1)) + 8
