"""weir in the simulator: the real Router, PrefixIndex, policy, LatencyBook and AdmissionQueue.

The asyncio gate cannot run on simulated time; :meth:`WeirSystem._pump` does its synchronous part
(offer, next, choose in one step) with the same objects. What the gateway learns, and when: KV
events 2 ms after the engine's step, each engine's stats every 200 ms, its own requests' tokens as
they come (counted once per ``progress_s``, which the real one does per chunk). Output lengths are
not known: the running mean of what was seen is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import router.scorers  # noqa: F401  (registers the policies)
from load_tests.sim.blocks import KvOp
from load_tests.sim.figures import Slo
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet, Knowledge, PolledStats
from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    ReplicaLimits,
    Shed,
    SnapshotCapacity,
    Spill,
)
from router.forecast import RouterForecast
from router.ledger import Reservation
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, ReplicaStats, RouteRequest

FIRST_GUESS_TOKENS = 256
MEAN_WEIGHT = 0.02


@dataclass(frozen=True, slots=True)
class WeirProfile:
    """What an operator would configure, and how fast news travels."""

    policy: str = "weir"
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    admission: AdmissionSettings | None = None
    stats_interval_s: float = 0.2
    kv_event_delay_s: float = 0.002
    progress_s: float = 1.0
    name: str = "weir"


def routing_profile(slo: Slo) -> WeirProfile:
    """weir as shipped, with one class whose target is the SLO; late requests run last and none is
    refused, so that every system answers the same requests."""
    one = ClassSettings(
        "standard",
        0,
        max_requests=1_000_000,
        ttft_slo_ms=slo.ttft_s * 1e3,
        max_wait_s=None,
        short_first_s_per_1k_tokens=4.0,
    )
    return WeirProfile(admission=AdmissionSettings(enabled=True, classes=(one,)))


class WeirSystem:
    """The gateway's decisions, synchronously."""

    def __init__(self, profile: WeirProfile) -> None:
        self.profile = profile
        self.name = profile.name
        self.knowledge = Knowledge(profile.stats_interval_s, profile.kv_event_delay_s)

    def start(self, fleet: Fleet) -> None:
        """Build the router and the queue on the simulated clock."""
        self._fleet = fleet
        policy = build_policy(self.profile.policy, self.profile.params)
        self.router = Router(policy, self._clock, fleet.rng)
        config = fleet.engines[0].config
        self._ids = [f"r{index}" for index in range(len(fleet.engines))]
        self._slot = {replica: index for index, replica in enumerate(self._ids)}
        self.router.set_replicas(
            ReplicaInfo(
                replica,
                kv_blocks_total=config.blocks,
                block_size=config.block_size,
                max_running=config.max_sequences,
                kv_events=True,
                yielding_step_tokens=config.max_batched_tokens if config.yields else 0,
            )
            for replica in self._ids
        )
        self.forecast = RouterForecast(self.router)
        self.queue: AdmissionQueue | None = None
        if self.profile.admission is not None:
            self.queue = AdmissionQueue(self.profile.admission, self._clock, forecast=self.forecast)
        self._mean_output = float(FIRST_GUESS_TOKENS)
        self._waiting: dict[str, SimRequest] = {}
        self._running: dict[int, tuple[SimRequest, Reservation]] = {}
        self._timer_s = float("inf")
        self._ticking = False

    def _clock(self) -> float:
        return self._fleet.now_s

    # Requests.

    def arrive(self, request: SimRequest) -> None:
        """Offer to the queue and run it, or choose at once without one."""
        route = self._route_request(request)
        if self.queue is None:
            self._dispatch(request, self.router.choose(route), 0)
            return
        outcome = self.queue.offer(route, 0)
        if isinstance(outcome, Shed | Spill):
            self._fleet.shed(request, _reason(outcome))
            return
        self._waiting[route.request_id] = request
        self._pump()

    def _route_request(self, request: SimRequest) -> RouteRequest:
        trace = request.trace
        return RouteRequest(
            request_id=str(request.index),
            model="m",
            tenant=trace.tenant,
            prompt_tokens=trace.prompt_tokens,
            max_output_tokens=1 << 16,
            expected_output_tokens=max(1, round(self._mean_output)),
            priority_class=trace.priority_class,
            block_hashes=trace.block_hashes,
            session=trace.session,
            arrival_s=request.arrival_s,
        )

    def _pump(self, _: Any = None) -> None:
        """What the gate does: dispatch all that has room now."""
        queue, admission = self.queue, self.profile.admission
        if queue is None or admission is None:
            return
        while len(queue):
            router = self.router
            outcome = queue.next(self._capacity(admission.limits))
            if isinstance(outcome, Dispatch):
                request = self._waiting.pop(outcome.request.request_id)
                reservation = router.choose(outcome.request, outcome.saturated)
                self._dispatch(request, reservation, outcome.priority)
            elif isinstance(outcome, Shed | Spill):
                self._fleet.shed(self._waiting.pop(outcome.request.request_id), _reason(outcome))
            else:
                self._wake_at(outcome.until_s)
                return

    def _capacity(self, limits: ReplicaLimits) -> SnapshotCapacity:
        router, forecast = self.router, self.forecast
        return SnapshotCapacity(
            router.snapshot(), limits, router.overlap, forecast.unused_s, forecast.thrashing
        )

    def _wake_at(self, until_s: float | None) -> None:
        if until_s is None or (self._fleet.now_s < self._timer_s <= until_s):
            return
        self._timer_s = until_s
        self._fleet.after(max(0.0, until_s - self._fleet.now_s) + 1e-6, self._pump)

    def _dispatch(self, request: SimRequest, reservation: Reservation, priority: int) -> None:
        request.note = [0, reservation]
        self._running[request.index] = (request, reservation)
        if not self._ticking:
            self._ticking = True
            self._fleet.after(self.profile.progress_s, self._tick)
        self._fleet.dispatch(request, self._slot[reservation.replica_id], priority)

    # What comes back.

    def first_token(self, request: SimRequest) -> None:
        """The replica has room for the next prefill."""
        self._progress(request, 1)
        self._pump()

    def finished(self, request: SimRequest) -> None:
        """Settle and free everything."""
        output = request.trace.output_tokens
        self._progress(request, output)
        _, reservation = self._running.pop(request.index)
        reservation.release()
        if self.queue is not None:
            self.queue.finish(str(request.index))
        self._mean_output += MEAN_WEIGHT * (output - self._mean_output)
        self._pump()

    def _progress(self, request: SimRequest, generated: int) -> None:
        note = request.note
        assert isinstance(note, list)
        told, reservation = note
        new = generated - told
        if new <= 0:
            return
        note[0] = generated
        reservation.progress(new)
        if self.queue is not None:
            block_size = self._fleet.engines[0].config.block_size
            cached = reservation.decision.overlap_blocks * block_size
            self.queue.progress(str(request.index), new, cached)

    def _tick(self, _: Any) -> None:
        """Count the tokens that streamed by since the last tick."""
        for request, _reservation in self._running.values():
            decoding = self._fleet.engines[request.replica].decoding
            if request in decoding:
                self._progress(request, decoding.generated(request))
        self._ticking = bool(self._running)
        if self._ticking:
            self._fleet.after(self.profile.progress_s, self._tick)

    def stepped(self, replica: int) -> None:
        """A message with tokens came."""
        self.router.stepped(self._ids[replica])

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """Feed the index as the event listener does."""
        index, name = self.router.index, self._ids[replica]
        for stored, hashes, parent in ops:
            if stored:
                index.stored(name, hashes, parent)
            else:
                index.removed(name, hashes)

    def stats(self, stats: PolledStats) -> None:
        """An engine's own view."""
        self.router.update_stats(
            self._ids[stats.replica],
            ReplicaStats(stats.running, stats.waiting, stats.kv_blocks_used, stats.at_s),
        )


def _reason(outcome: Shed | Spill) -> str:
    return str(outcome.reason)
