"""The ledger: what was outstanding is freed exactly once, whatever ends it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from router.ledger import Ledger, Outlook, Reservation, prefill_work
from router.types import Decision, ReplicaLoad, RouteRequest

REPLICAS = ("a", "b", "c")


def request(prompt: int = 100, expected: int = 20) -> RouteRequest:
    return RouteRequest("q", "m", "t", prompt, 1000, expected)


class LedgerMachine(RuleBasedStateMachine):
    """Totals equal what live reservations still have outstanding, at every moment."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.ledger.align(REPLICAS)
        # reservation → [prefill, decode, context], only while it counts
        self.live: dict[Reservation, list[int]] = {}

    @rule(
        target=reservations,
        name=st.sampled_from(REPLICAS),
        prompt=st.integers(1, 500),
        cached=st.integers(0, 600),
        expected=st.integers(0, 30),
    )
    def reserve(self, name: str, prompt: int, cached: int, expected: int) -> Reservation:
        made = self.ledger.reserve(request(prompt, expected), Decision(name, ""), cached)
        self.live[made] = [max(0, prompt - cached), expected, prompt]
        return made

    @rule(made=reservations, count=st.integers(1, 12))
    def progress(self, made: Reservation, count: int) -> None:
        made.progress(count)
        if made in self.live:
            _, decode, context = self.live[made]
            self.live[made] = [0, max(1, decode - count), context + count]

    @rule(made=reservations)
    def release(self, made: Reservation) -> None:
        first = not made.released
        assert made.release() is first
        assert made.released
        self.live.pop(made, None)

    @rule(name=st.sampled_from(REPLICAS))
    def replica_dies_and_comes_back(self, name: str) -> None:
        self.ledger.align([n for n in REPLICAS if n != name])
        self.ledger.align(REPLICAS)
        for made in [m for m in self.live if m.replica_id == name]:
            del self.live[made]

    @invariant()
    def totals_are_the_sum_of_what_lives(self) -> None:
        for name in REPLICAS:
            mine = [v for made, v in self.live.items() if made.replica_id == name]
            expected = ReplicaLoad(len(mine), *(sum(v[i] for v in mine) for i in range(3)))
            assert self.ledger.load(name) == expected


TestLedger = LedgerMachine.TestCase


class Heard:
    def __init__(self) -> None:
        self.first: list[tuple[str, Outlook, float]] = []
        self.done: list[tuple[str, Outlook, float, int]] = []

    def first_token(self, replica_id: str, outlook: Outlook, ttft_s: float) -> None:
        self.first.append((replica_id, outlook, ttft_s))

    def finished(self, replica_id: str, outlook: Outlook, tpot_s: float, tokens: int) -> None:
        self.done.append((replica_id, outlook, tpot_s, tokens))


def test_the_observer_hears_of_latencies_once() -> None:
    heard, now = Heard(), [10.0]
    ledger = Ledger(lambda: now[0], heard)
    ledger.reserve(request(50), Decision("a", ""))
    made = ledger.reserve(request(100), Decision("a", ""), cached_tokens=60)
    now[0] = 10.5
    made.progress(2)
    now[0] = 11.5
    made.progress(4)
    now[0] = 12.5
    made.progress(4)
    made.release()
    made.release()
    outlook = Outlook(10.0, prefill_tokens=90, requests=2, context_tokens=150)
    assert heard.first == [("a", outlook, 0.5)]
    assert heard.done == [("a", outlook, 0.25, 8)]


def test_a_cancelled_request_teaches_nothing() -> None:
    heard = Heard()
    ledger = Ledger(lambda: 1.0, heard)
    ledger.reserve(request(), Decision("a", "")).release()
    assert heard.first == heard.done == []


@given(order=st.permutations(REPLICAS))
def test_align_moves_columns_with_their_replicas(order: list[str]) -> None:
    ledger = Ledger()
    ledger.align(REPLICAS)
    for i, name in enumerate(REPLICAS, start=1):
        for _ in range(i):
            ledger.reserve(request(), Decision(name, ""))
    ledger.align(order)
    assert [ledger.requests[order.index(name)] for name in REPLICAS] == [1, 2, 3]


def test_prefill_work_counts_attention() -> None:
    assert prefill_work(1000, 0, math.inf) == 1000
    assert prefill_work(2000, 0, 1000.0) == 4000
    assert prefill_work(1000, 500, 1000.0) == 2000
    whole = prefill_work(3000, 0, 700.0)
    assert whole == pytest.approx(prefill_work(1000, 0, 700.0) + prefill_work(2000, 1000, 700.0))


def test_work_is_done_while_one_waits_unless_a_replica_is_stuck() -> None:
    now = [10.0]
    ledger = Ledger(lambda: now[0])
    first = ledger.reserve(request(1000), Decision("r", ""))
    assert ledger.work_left(10.5, 0.0) == [1000]  # nothing is known of the speed
    assert ledger.work_left(10.5, 0.001) == [500.0]
    assert ledger.work_left(12.9, 0.001) == [0.0]
    assert ledger.work_left(13.1, 0.001) == [1000]  # three times too long
    now[0] = 10.4
    ledger.reserve(request(2000), Decision("r", ""))
    assert ledger.work_left(10.5, 0.001) == [2500.0]
    now[0] = 11.0
    first.progress(1)
    assert ledger.work_left(11.5, 0.001) == [1500.0]  # the second began when the first was over
    first.release()
    assert ledger.prefill_tokens == [2000]
