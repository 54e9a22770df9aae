"""The admission queue against a plain model, under any sequence of calls.

Held after every step: counts and bounds, each request ends exactly once, nothing stays reserved
for what ended, no work is refused while a replica has room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import msgspec
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Share,
    Shed,
    Spill,
    Wait,
)
from router.admission.waiting import LATE
from router.types import RouteRequest

CLASSES = (
    ClassSettings("fast", 0, max_requests=6, max_bytes=60, ttft_slo_ms=3000, on_hopeless="shed"),
    ClassSettings("main", 1, max_requests=9, max_bytes=90, ttft_slo_ms=5000, max_wait_s=20),
    ClassSettings("side", 1, weight=0.5, within="deadline", max_wait_s=None, share=Share(0.5)),
    ClassSettings("bulk", 2, within="short-first", max_requests=9),
)
SETTINGS = AdmissionSettings(
    classes=CLASSES,
    tenant_weights={"a": 2.0},
    input_weight=1.3,
    output_weight=1.7,
    ageing_after_s=2.0,
    ageing_every=3,
)


@dataclass
class Slots:
    free: int
    refused: set[str] = field(default_factory=set)

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return frozenset() if self.free > 0 else None

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class QueueMachine(RuleBasedStateMachine):
    offered = Bundle("offered")

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.queue = AdmissionQueue(SETTINGS, lambda: self.now)
        self.count = 0
        self.waiting: dict[str, tuple[RouteRequest, int]] = {}
        self.in_flight: dict[str, RouteRequest] = {}
        self.ended: list[str] = []
        self.priorities: dict[str, int] = {}

    def take_out(self, request: RouteRequest) -> None:
        del self.waiting[request.request_id]
        self.ended.append(request.request_id)

    @rule(
        target=offered,
        tenant=st.sampled_from("abc"),
        name=st.sampled_from([c.name for c in CLASSES]),
        prompt=st.integers(0, 5000),
        output=st.integers(0, 500),
        body=st.integers(0, 30),
        due=st.none() | st.floats(-1, 10),
    )
    def offer(self, tenant, name, prompt, output, body, due):  # type: ignore[no-untyped-def]
        self.count += 1
        deadline_s = None if due is None else self.now + due
        request = RouteRequest(
            f"{tenant}{self.count}", "m", tenant, prompt, output, output, name,
            arrival_s=self.now, deadline_s=deadline_s,
        )  # fmt: skip
        outcome = self.queue.offer(request, body)
        if isinstance(outcome, Wait):
            self.waiting[request.request_id] = (request, body)
        else:
            assert isinstance(outcome, Shed)
            assert outcome.request is request
            assert outcome.retry_after_s is not None
            self.ended.append(request.request_id)
        return request.request_id

    @rule(slots=st.integers(0, 6))
    def dispatch(self, slots: int) -> None:
        capacity = Slots(slots)
        while not isinstance(outcome := self.queue.next(capacity), Wait):
            if isinstance(outcome, Dispatch):
                capacity.free -= 1
                request, _ = self.waiting.pop(outcome.request.request_id)
                assert request == msgspec.structs.replace(outcome.request, urgency=request.urgency)
                self.in_flight[request.request_id] = request
                assert outcome.priority not in self.priorities.values()
                self.priorities[request.request_id] = outcome.priority
            else:
                self.take_out(outcome.request)
        assert capacity.free == 0 or not self.waiting  # work-conserving

    @rule(seconds=st.floats(0, 8))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        while not isinstance(outcome := self.queue.next(Slots(0)), Wait):
            assert isinstance(outcome, Shed | Spill)
            self.take_out(outcome.request)

    @rule(request_id=offered, tokens=st.integers(0, 400), cached=st.integers(0, 6000))
    def progress(self, request_id: str, tokens: int, cached: int) -> None:
        self.queue.progress(request_id, tokens, cached)

    @rule(request_id=offered)
    def finish(self, request_id: str) -> None:
        self.end_in_flight(request_id, self.queue.finish(request_id))

    @rule(request_id=offered)
    def give_back(self, request_id: str) -> None:
        self.end_in_flight(request_id, self.queue.give_back(request_id))

    def end_in_flight(self, request_id: str, did: bool) -> None:
        assert did == (request_id in self.in_flight)
        if did:
            del self.in_flight[request_id]
            self.ended.append(request_id)

    @rule(request_id=consumes(offered))
    def cancel(self, request_id: str) -> None:
        did = self.queue.cancel(request_id)
        assert did == (request_id in self.in_flight or request_id in self.waiting)
        if did:
            self.in_flight.pop(request_id, None)
            self.waiting.pop(request_id, None)
            self.ended.append(request_id)

    @rule()
    def close(self) -> None:
        for outcome in self.queue.close():
            self.take_out(outcome.request)
        assert not self.waiting

    @invariant()
    def counts_are_right(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.in_flight == len(self.in_flight)
        assert len(set(self.ended)) == len(self.ended)
        assert len(self.ended) + len(self.waiting) + len(self.in_flight) == self.count

    @invariant()
    def bounds_hold(self) -> None:
        for bounds, stats in zip(CLASSES, self.queue.stats(), strict=True):
            own = [b for r, b in self.waiting.values() if r.priority_class == bounds.name]
            assert (stats.waiting, stats.waiting_bytes) == (len(own), sum(own))
            assert stats.waiting <= bounds.max_requests
            assert stats.waiting_bytes <= bounds.max_bytes

    @invariant()
    def nothing_is_reserved_for_what_ended(self) -> None:
        for c in self.queue._backlog.classes.values():
            flying = [r for r in self.in_flight.values() if r.priority_class == c.name]
            assert c.in_flight == len(flying)
            assert c.flying == len({r.tenant for r in flying})
            for name, tenant in c.tenants.items():
                own = [r for r in flying if r.tenant == name]
                assert tenant.in_flight == len(own)
                assert tenant.pending == 0.0 if not own else tenant.pending > -1e-6
                assert (tenant in c.active) == (tenant.waiting > 0)
                assert (tenant in c.late) == (tenant.queues[LATE].live > 0)
                assert sum(queue.live for queue in tenant.queues) == tenant.waiting


QueueMachine.TestCase.settings = hypothesis_settings(
    max_examples=80, stateful_step_count=60, deadline=None
)
TestAdmissionQueue = QueueMachine.TestCase
