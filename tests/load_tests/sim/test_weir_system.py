"""weir's own objects in the simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from load_tests.sim.calibrations import H100_8B
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.run import run_open
from load_tests.sim.weir_system import WeirProfile, WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig
from load_tests.traces import Trace, TraceRequest
from router.admission import AdmissionSettings, ClassSettings
from router.shipped import RoutingProfile, shipped_profile
from router.types import ReplicaLoad

SLO = Slo(5.0, 0.15)
OPEN = WeirProfile(RoutingProfile(admission=AdmissionSettings(enabled=False)))
FLEET = FleetConfig(3, EngineConfig(300, 16, 256, 16, priority_scheduling=True), H100_8B)


def chat(count: int, gap_s: float) -> Trace:
    """Conversations that grow turn by turn."""
    requests = []
    for number in range(count):
        talk, turn = number % 7, number // 7
        hashes = tuple(talk * 1000 + block for block in range(4 + turn % 12))
        requests.append(TraceRequest(number * gap_s, 16 * len(hashes) + 5, 12, hashes))
    return Trace("chat", "test", 16, tuple(requests))


def test_what_is_measured_is_what_ships() -> None:
    """Only the targets and the patience of the class differ."""
    measured, shipped = routing_profile(SLO).routing, shipped_profile()
    assert (measured.policy, measured.params) == (shipped.policy, shipped.params)
    ours = {c.name: c for c in measured.admission.classes}
    theirs = {c.name: c for c in shipped.admission.classes}
    standard = theirs["standard"]
    given = replace(
        ours["standard"],
        ttft_slo_ms=standard.ttft_slo_ms,
        tpot_slo_ms=standard.tpot_slo_ms,
        max_requests=standard.max_requests,
        max_bytes=standard.max_bytes,
        max_wait_s=standard.max_wait_s,
    )
    assert {**ours, "standard": given} == theirs
    assert replace(measured.admission, classes=shipped.admission.classes) == shipped.admission


@pytest.mark.parametrize("profile", [routing_profile(SLO), OPEN])
def test_everything_is_freed_and_the_index_ends_as_the_engines_do(profile: WeirProfile) -> None:
    system = WeirSystem(profile)
    outcome = run_open(system, chat(300, 0.01), FLEET, 200.0, SLO, seed=2)
    assert outcome.world.answered == 300
    for view in system.router.snapshot().replicas:
        assert view.load == ReplicaLoad()
    queue = system.dispatcher.queue
    assert (len(system.dispatcher), len(queue), queue.in_flight) == (0, 0, 0)
    for engine, name in zip(outcome.world.engines, ("r0", "r1", "r2"), strict=True):
        assert system.router.index.blocks(name) >= engine.pool.cached
        assert system.router.index.orphans(name) == 0
    assert outcome.figures["hit_rate"] > 0.3


def test_what_is_refused_is_shed_with_its_reason() -> None:
    one = ClassSettings("standard", 0, max_requests=2, max_wait_s=None)
    limits = {"prefill": {"tokens": 1}}
    settings = AdmissionSettings(enabled=True, classes=(one,), limits=limits)
    system = WeirSystem(WeirProfile(RoutingProfile(admission=settings)))
    outcome = run_open(system, chat(100, 0.001), FLEET, 1000.0, SLO, seed=2)
    reasons = {r.shed_reason for r in outcome.world.requests if r.shed_reason is not None}
    assert reasons <= {"queue_full", "tenant_share"}
    assert reasons
    assert outcome.world.answered == 100
