"""A clock that is set by hand, requests by the dozen, and room on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from router.admission import AdmissionQueue, Share, Shed, Spill
from router.types import RouteRequest


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Room:
    """A capacity with ``slots`` free places; remembers what it was asked."""

    slots: int = 1_000_000
    blocked: set[str] = field(default_factory=set)
    spared: set[str] = field(default_factory=set)
    asked: list[tuple[str, Share]] = field(default_factory=list)

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        self.asked.append((request.request_id, share))
        if self.slots < 1 or request.request_id in self.blocked:
            return None
        return frozenset({"full-replica"})

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return request.request_id in self.spared


MakeRequest = Callable[..., RouteRequest]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def expired() -> Callable[[AdmissionQueue], list[Shed | Spill]]:
    """What a queue refuses because its time is up, while nothing has room."""

    def expire(queue: AdmissionQueue) -> list[Shed | Spill]:
        found = []
        while isinstance(outcome := queue.next(Room(slots=0)), Shed | Spill):
            found.append(outcome)
        return found

    return expire


@pytest.fixture
def make_request(clock: Clock) -> MakeRequest:
    count = 0

    def make(
        tenant: str = "a",
        priority_class: str = "standard",
        prompt: int = 100,
        output: int = 50,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> RouteRequest:
        nonlocal count
        count += 1
        return RouteRequest(
            request_id=request_id or f"{tenant}{count}",
            model="m",
            tenant=tenant,
            prompt_tokens=prompt,
            max_output_tokens=4 * output,
            expected_output_tokens=output,
            priority_class=priority_class,
            arrival_s=clock.now,
            deadline_s=deadline_s,
        )

    return make
