"""A request dispatched as it is offered leaves the queue as one that was queued first.

Two queues get the same calls. One is offered requests together with the room there is; the other
queues each and is asked what is next. Every outcome must be the same, and so must every later one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Refusal,
    Share,
    Shed,
    Spill,
    Wait,
)
from router.types import RouteRequest

CLASSES = (
    ClassSettings("fast", 0, max_requests=6, ttft_slo_ms=3000, on_hopeless="shed"),
    ClassSettings("main", 1, max_requests=9, ttft_slo_ms=900, max_wait_s=2, share=Share(0.5)),
    ClassSettings("side", 1, weight=0.5, within="deadline", max_wait_s=None),
    ClassSettings("bulk", 2, within="fifo", max_requests=9),
)
SETTINGS = AdmissionSettings(
    classes=CLASSES,
    tenant_weights={"a": 2.0},
    output_weight=1.7,
    ageing_after_s=0.5,
    ageing_every=2,
    drain_window_s=2.0,
)
Outcome = Dispatch | Wait | Shed | Spill


@dataclass
class Places:
    """Room for so many; with less than the full share, one is kept free."""

    taken: int = 0
    most: int = 4

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return frozenset() if self.taken + (share.prefill < 1) < self.most else None

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class Side:
    """One of the two queues, and the places that its dispatches take."""

    def __init__(self, at_once: bool) -> None:
        self.now_s = 50.0
        self.at_once = at_once
        self.places = Places()
        self.queue = AdmissionQueue(SETTINGS, lambda: self.now_s, spill=_spill)
        self.dispatched_at_once = 0

    def offer(self, request: RouteRequest) -> list[Outcome]:
        capacity = self.places if self.at_once else None
        first = self.queue.offer(request, 1, capacity=capacity)
        if isinstance(first, Dispatch):
            self.dispatched_at_once += 1
            self.places.taken += 1
            return [first]
        return self.drain() if isinstance(first, Wait) else [first]

    def drain(self) -> list[Outcome]:
        found: list[Outcome] = []
        while not isinstance(outcome := self.queue.next(self.places), Wait):
            self.places.taken += isinstance(outcome, Dispatch)
            found.append(outcome)
        return found

    def end(self, request_id: str, finished: bool) -> list[Outcome]:
        end = self.queue.finish if finished else self.queue.give_back
        self.places.taken -= end(request_id)
        return self.drain()


def _spill(request: RouteRequest, wait_s: float | None, refusal: Refusal | None) -> str | None:
    return "long" if (wait_s or 0.0) > 2.0 else None


def _told(outcome: Outcome) -> object:
    """Errors have no equality of their own."""
    if isinstance(outcome, Shed):
        return outcome.request, outcome.reason, str(outcome.error), outcome.retry_after_s
    return outcome


@given(st.integers(0, 2**32))
def test_the_way_through_the_queue_makes_no_difference(seed: int) -> None:
    rng = random.Random(seed)
    sides = Side(True), Side(False)
    running: list[str] = []

    def both(outcomes: tuple[list[Outcome], list[Outcome]]) -> None:
        ours, theirs = outcomes
        assert [_told(it) for it in ours] == [_told(it) for it in theirs]
        running.extend(it.request.request_id for it in ours if isinstance(it, Dispatch))

    for step in range(80):
        passed_s = rng.choice((0.0, 0.1, 1.0))
        for side in sides:
            side.now_s += passed_s
        act = rng.random()
        if act < 0.5:
            request = _request(step, rng, sides[0].now_s)
            both((sides[0].offer(request), sides[1].offer(request)))
        elif running and act < 0.6:
            tokens, cached = rng.randrange(300), rng.randrange(300)
            for side in sides:
                side.queue.progress(running[-1], tokens, cached)
        elif running:
            ended, finished = running.pop(rng.randrange(len(running))), rng.random() < 0.9
            both((sides[0].end(ended, finished), sides[1].end(ended, finished)))
        assert sides[0].queue.stats() == sides[1].queue.stats()
        assert sides[0].queue.next_timer_s() == sides[1].queue.next_timer_s()


def _request(step: int, rng: random.Random, now_s: float) -> RouteRequest:
    return RouteRequest(
        f"q{step}",
        "m",
        rng.choice("abc"),
        rng.randrange(1, 3000),
        500,
        rng.randrange(500),
        rng.choice(CLASSES).name,
        arrival_s=now_s - rng.choice((0.0, 1.0, 5.0)),
        deadline_s=rng.choice((None, now_s + 0.5)),
    )


@pytest.mark.parametrize("at_once", [True, False])
def test_only_room_and_an_empty_queue_let_a_request_pass(at_once: bool) -> None:
    side = Side(at_once)
    request = _request(0, random.Random(1), side.now_s)
    calm = [
        msgspec.structs.replace(request, request_id=f"c{n}", priority_class="side")
        for n in range(6)
    ]
    outcomes = [side.offer(one) for one in calm]
    assert [len(found) for found in outcomes] == [1, 1, 1, 1, 0, 0]
    assert side.dispatched_at_once == (4 if at_once else 0)
    # A place is free again, but somebody waits for it.
    (first,) = side.end("c0", finished=True)
    assert isinstance(first, Dispatch)
    assert first.request.request_id == "c4"
