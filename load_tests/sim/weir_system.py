"""weir in the simulator: the gateway's own dispatcher, on simulated time.

:class:`router.dispatcher.Dispatcher` decides here as it does in the gateway. What this file adds is
what the gateway learns, and when: KV events 2 ms after the engine's step, each engine's stats every
200 ms, its own requests' tokens as they come (counted once per ``progress_s``, which the real one
does per chunk). How long answers will be is not known; the dispatcher learns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from load_tests.sim.blocks import KvOp
from load_tests.sim.figures import Slo
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet, Knowledge, PolledStats
from router.admission import ClassSettings, Refused, Ticket
from router.dispatcher import Waiting
from router.shipped import RoutingProfile, shipped_profile
from router.types import ReplicaInfo, ReplicaStats, Role, RouteRequest

#: What a trace's requests may generate; they ask for no limit of their own.
OUTPUT_LIMIT_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True)
class WeirProfile:
    """What an operator would configure, and how fast news travels."""

    routing: RoutingProfile = field(default_factory=shipped_profile)
    stats_interval_s: float = 0.2
    kv_event_delay_s: float = 0.002
    progress_s: float = 1.0
    name: str = "weir"


def routing_profile(slo: Slo) -> WeirProfile:
    """weir as shipped, with the SLO as the target of class ``standard``, which all requests of the
    traces are of. Late requests run last and none is refused, so that every system answers the same
    requests."""
    return class_profile({"standard": slo})


def class_profile(slos: Mapping[str, Slo]) -> WeirProfile:
    """The same for several classes."""
    shipped = shipped_profile()
    classes = tuple(
        _patient(c, slos[c.name]) if c.name in slos else c for c in shipped.admission.classes
    )
    admission = replace(shipped.admission, classes=classes)
    return WeirProfile(replace(shipped, admission=admission))


def _patient(c: ClassSettings, slo: Slo) -> ClassSettings:
    return replace(
        c,
        ttft_slo_ms=slo.ttft_s * 1e3,
        tpot_slo_ms=slo.tpot_s * 1e3,
        max_requests=1_000_000,
        max_bytes=1 << 40,
        max_wait_s=None,
    )


class WeirSystem:
    """One gateway."""

    def __init__(self, profile: WeirProfile) -> None:
        self.profile = profile
        self.name = profile.name
        self.knowledge = Knowledge(profile.stats_interval_s, profile.kv_event_delay_s)

    def start(self, fleet: Fleet) -> None:
        """Build router and dispatcher on the simulated clock."""
        self._fleet = fleet
        self.dispatcher = self.profile.routing.dispatcher(self._clock, self._clock, fleet.rng)
        self.dispatcher.set_timer = self._wake_at
        self.router = self.dispatcher.router
        self._ids = [f"r{index}" for index in range(len(fleet.engines))]
        self._slot = {replica: index for index, replica in enumerate(self._ids)}
        roles: Iterable[Role] = fleet.roles or repeat("mixed")
        self.router.set_replicas(map(_replica, repeat(fleet), self._ids, roles))
        self._running: dict[int, tuple[SimRequest, Ticket]] = {}
        self._timer_s = float("inf")
        self._ticking = False

    def _clock(self) -> float:
        return self._fleet.now_s

    # Requests.

    def arrive(self, request: SimRequest) -> None:
        """Offer it to the dispatcher."""
        outcome = self.dispatcher.offer(_route_request(request))
        if isinstance(outcome, Waiting):
            outcome.on_settled = lambda waiting: self._settled(request, waiting.outcome)
        else:
            self._settled(request, outcome)

    def _settled(self, request: SimRequest, outcome: Ticket | Refused | None) -> None:
        if not isinstance(outcome, Ticket):
            assert outcome is not None
            self._fleet.shed(request, str(outcome.reason))
            return
        request.note = outcome
        self._running[request.index] = (request, outcome)
        if not self._ticking:
            self._ticking = True
            self._fleet.after(self.profile.progress_s, self._tick)
        slot, prefill = self._slot[outcome.grant.replica_id], outcome.grant.prefill
        if prefill is None:
            self._fleet.dispatch(request, slot, outcome.priority)
        else:
            first = self._slot[prefill.replica_id]
            self._fleet.dispatch_pair(request, first, slot, outcome.priority)

    def _wake_at(self, at_s: float | None) -> None:
        if at_s is None or (self._fleet.now_s < self._timer_s <= at_s):
            return
        self._timer_s = at_s
        self._fleet.after(max(0.0, at_s - self._fleet.now_s) + 1e-6, self._wake)

    def _wake(self, _: Any) -> None:
        self.dispatcher.wake()

    # What comes back.

    def prompt_ready(self, request: SimRequest) -> None:
        """The prefill replica has room for the next one."""
        _ticket(request).prefill_done()

    def transferred(self, request: SimRequest, tokens: int, transfer_s: float) -> None:
        """The prefill replica no longer holds the prompt for this request."""
        _ticket(request).transferred(tokens, transfer_s)

    def first_token(self, request: SimRequest) -> None:
        """The replica has room for the next prefill."""
        self._progress(request, 1)

    def finished(self, request: SimRequest) -> None:
        """Settle and free everything."""
        self._progress(request, request.trace.output_tokens)
        _, ticket = self._running.pop(request.index)
        ticket.close(complete=True)

    def _progress(self, request: SimRequest, generated: int) -> None:
        ticket = _ticket(request)
        new = generated - ticket.output_tokens
        if new > 0:
            ticket.progress(new, request.cached_tokens)

    def _tick(self, _: Any) -> None:
        """Count the tokens that streamed by since the last tick."""
        for request, _ticket in self._running.values():
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
        self.dispatcher.wake()


def _ticket(request: SimRequest) -> Ticket:
    ticket = request.note
    assert isinstance(ticket, Ticket)
    return ticket


def _replica(fleet: Fleet, name: str, role: Role) -> ReplicaInfo:
    config = fleet.engines[0].config
    return ReplicaInfo(
        name,
        kv_blocks_total=config.blocks,
        block_size=config.block_size,
        max_running=config.max_sequences,
        kv_events=True,
        yielding_step_tokens=config.max_batched_tokens if config.yields else 0,
        role=role,
    )


def _route_request(request: SimRequest) -> RouteRequest:
    trace = request.trace
    return RouteRequest(
        request_id=str(request.index),
        model="m",
        tenant=trace.tenant,
        prompt_tokens=trace.prompt_tokens,
        max_output_tokens=OUTPUT_LIMIT_TOKENS,
        priority_class=trace.priority_class,
        block_hashes=trace.block_hashes,
        arrival_s=request.arrival_s,
    )
