"""The circuit breaker, step by step and against everything that may happen to it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallback.policies import BreakerState, CircuitBreaker, Pass
from weir.settings.fallback import FailureSettings

SETTINGS = FailureSettings(window_s=10, failures=3, open_s=1, max_open_s=8, probes=2)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def opened() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    breaker = CircuitBreaker(SETTINGS, clock)
    for _ in range(3):
        entered = breaker.enter()
        assert entered is not None
        breaker.failed(entered)
    return breaker, clock


def probe(breaker: CircuitBreaker) -> Pass:
    entered = breaker.enter()
    assert entered is not None
    assert entered.probe
    return entered


def test_failures_far_apart_do_not_open_it() -> None:
    clock = Clock()
    breaker = CircuitBreaker(SETTINGS, clock)
    for _ in range(10):
        entered = breaker.enter()
        assert entered is not None
        breaker.failed(entered)
        clock.now_s += 5.1
    assert breaker.state is BreakerState.CLOSED


def test_it_opens_probes_with_single_requests_and_closes() -> None:
    breaker, clock = opened()
    assert breaker.state is BreakerState.OPEN
    assert breaker.enter() is None
    clock.now_s += 1
    first = probe(breaker)
    assert breaker.enter() is None, "one probe at a time"
    breaker.succeeded(first)
    second = probe(breaker)
    breaker.succeeded(second)
    assert breaker.state is BreakerState.CLOSED


def test_failed_probes_wait_longer_and_longer() -> None:
    breaker, clock = opened()
    waits = []
    for _ in range(5):
        began = clock.now_s
        while breaker.state is not BreakerState.HALF_OPEN:
            clock.now_s += 0.25
        waits.append(clock.now_s - began)
        breaker.failed(probe(breaker))
    assert waits == [1, 2, 4, 8, 8]


def test_a_cancelled_probe_lets_the_next_one_in() -> None:
    breaker, clock = opened()
    clock.now_s += 1
    breaker.cancelled(probe(breaker))
    breaker.succeeded(probe(breaker))


def test_a_probe_that_never_ends_does_not_block_for_ever() -> None:
    breaker, clock = opened()
    clock.now_s += 1
    probe(breaker)
    clock.now_s += SETTINGS.max_open_s
    probe(breaker)


def test_late_news_of_before_the_opening_changes_nothing() -> None:
    clock = Clock()
    breaker = CircuitBreaker(SETTINGS, clock)
    old = [breaker.enter() for _ in range(9)]
    for entered in old[:3]:
        assert entered is not None
        breaker.failed(entered)
    clock.now_s += 1
    first = probe(breaker)
    for entered in old[3:]:
        assert entered is not None
        breaker.failed(entered)
        breaker.succeeded(entered)
    breaker.succeeded(first)
    breaker.succeeded(probe(breaker))
    assert breaker.state is BreakerState.CLOSED


def test_an_empty_pool_trips_it_and_a_new_member_is_tried_at_once() -> None:
    opens: list[int] = []
    clock = Clock()
    breaker = CircuitBreaker(SETTINGS, clock, lambda: opens.append(1))
    breaker.trip()
    breaker.trip()
    assert (breaker.enter(), len(opens)) == (None, 1)
    breaker.retry_now()
    breaker.failed(probe(breaker))
    assert breaker.state is BreakerState.OPEN, "the new member is no good: wait again"


class Machine(RuleBasedStateMachine):
    """Any order of requests, verdicts and pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.openings: list[float] = []
        self.breaker = CircuitBreaker(
            SETTINGS, self.clock, lambda: self.openings.append(self.clock.now_s)
        )
        self.out: list[Pass] = []

    @rule(seconds=st.floats(0, 5))
    def pause(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        entered = self.breaker.enter()
        assert (entered is None) <= (before is not BreakerState.CLOSED)
        if before is BreakerState.OPEN:
            assert entered is None
        if entered is not None:
            assert entered.probe == (before is BreakerState.HALF_OPEN)
            self.out.append(entered)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def verdict(self, data: st.DataObject, how: str) -> None:
        entered = data.draw(st.sampled_from(self.out))
        self.out.remove(entered)
        getattr(self.breaker, how)(entered)

    @rule()
    def trip(self) -> None:
        self.breaker.trip()

    @invariant()
    def never_opens_twice_within_its_time(self) -> None:
        """What flapping is allowed: two openings are at least ``open_s`` apart, unless the
        circuit was closed in between by ``probes`` successes."""
        pairs = zip(self.openings, self.openings[1:], strict=False)
        assert all(b - a >= SETTINGS.open_s for a, b in pairs)

    def teardown(self) -> None:
        """It always recovers: a pool that answers is used again after ``max_open_s``."""
        self.clock.now_s += SETTINGS.max_open_s + 1e-6
        for _ in range(SETTINGS.probes):
            entered = self.breaker.enter()
            assert entered is not None
            self.breaker.succeeded(entered)
        assert self.breaker.state is BreakerState.CLOSED


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase


@given(st.lists(st.booleans(), max_size=200), st.floats(0.01, 2))
@settings(max_examples=80, deadline=None)
def test_probes_are_rare_while_the_pool_is_down(came_back: list[bool], gap_s: float) -> None:
    """However many requests come while nobody answers, few of them reach the pool: one per
    ``open_s`` at most."""
    breaker, clock = opened()
    began, probes = clock.now_s, 0
    for _ in came_back:
        clock.now_s += gap_s
        entered = breaker.enter()
        if entered is not None:
            probes += 1
            breaker.failed(entered)
    assert probes <= (clock.now_s - began) / SETTINGS.open_s
