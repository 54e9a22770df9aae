"""What goes before a request on engines that yield, and what never does elsewhere."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

import router.scorers  # noqa: F401 - registers the policies
from router.ledger import Ledger, Outlook
from router.policy import build_policy
from router.router import Router
from router.snapshot import Ahead
from router.types import Decision, ReplicaInfo, ReplicaLoad, ReplicaStats, RouteRequest
from router.urgency import UrgencyColumns, UrgencySnapshot, work_of

URGENT, LATER = 0, 4
STEP = 2048


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, step_tokens: int = STEP, replicas: int = 2) -> Router:
    router = Router(build_policy("round-robin", {}), clock, random.Random(0))
    router.set_replicas(
        ReplicaInfo(f"r{n}", attention_tokens=1e12, yielding_step_tokens=step_tokens)
        for n in range(replicas)
    )
    return router


def asking(urgency: int, tokens: int, name: str = "x") -> RouteRequest:
    return RouteRequest(name, "m", "t", tokens, 100, 100, urgency=urgency)


def ahead(router: Router, urgency: int) -> list[float]:
    return list(router.snapshot().columns.for_urgency(urgency).prefill_work)


def test_later_work_is_not_ahead_but_the_step_under_way_is(clock: Clock) -> None:
    router = made(clock)
    router.choose(asking(LATER, 9000))
    columns = router.snapshot().columns
    assert list(columns.prefill_tokens) == [9000, 0]
    mine = columns.for_urgency(URGENT)
    assert list(mine.prefill_tokens) == [0, 0]
    assert list(mine.decode_tokens) == [0, 0]
    assert list(mine.context_tokens) == [0, 0]
    assert list(mine.requests) == [1, 0], "places are places"
    assert list(mine.prefill_work) == [STEP / 2, 0], "half a step, while nothing is known of it"
    assert columns.for_urgency(LATER) is columns


def test_a_short_later_prompt_takes_no_more_than_itself(clock: Clock) -> None:
    router = made(clock)
    router.choose(asking(LATER, 300))
    assert ahead(router, URGENT) == [150, 0]


def test_equal_orders_and_earlier_ones_are_ahead(clock: Clock) -> None:
    router = made(clock, replicas=1)
    router.choose(asking(LATER, 5000, "a"))
    router.choose(asking(URGENT, 700, "b"))
    router.choose(asking(2, 30, "c"))
    columns = router.snapshot().columns
    assert list(columns.for_urgency(URGENT).prefill_tokens) == [700]
    assert list(columns.for_urgency(2).prefill_tokens) == [730]
    assert list(columns.for_urgency(LATER).prefill_tokens) == [5730]


def test_an_engine_that_does_not_yield_is_as_before(clock: Clock) -> None:
    router = made(clock, step_tokens=0)
    router.choose(asking(LATER, 9000))
    columns = router.snapshot().columns
    assert columns.for_urgency(URGENT) is columns


def test_among_both_kinds_only_the_yielding_one_spares(clock: Clock) -> None:
    router = made(clock, step_tokens=0)
    infos = list(router.members)
    router.set_replicas([infos[0], replace(infos[1], yielding_step_tokens=STEP)])
    for name in "ab":
        router.choose(asking(LATER, 9000, name))
    assert ahead(router, URGENT) == [9000, STEP / 2]


def test_the_end_of_a_step_tells_how_long_the_next_one_takes(clock: Clock) -> None:
    found = []
    for waited_s in (0.0, 0.01, 0.05, 1.0):
        snapshot = UrgencySnapshot(
            now_s=clock() + waited_s,
            lines=_lines(9000),
            step_tokens=[STEP],
            stepped_s=[clock()],
            token_s=0.05 / STEP,
            elsewhere=_nothing(),
        )
        spared = snapshot.ahead_of(URGENT)
        assert spared is not None
        found.append(round(spared.prefill_work[0]))
    assert found == [2048, 1638, 0, 1024], "an end that was not heard of is not made up"


def test_what_came_during_a_step_begins_with_the_next(clock: Clock) -> None:
    router = made(clock, replicas=1)
    router.choose(asking(LATER, 9000, "batch"))
    clock.now_s += 0.03
    router.choose(asking(URGENT, 500, "chat"))
    assert ahead(router, URGENT) == [500 + STEP / 2], "the step under way is still the batch's"
    clock.now_s += 0.03
    router.stepped("r0")
    clock.now_s += 0.001
    assert ahead(router, URGENT) == [500]


def test_work_elsewhere_has_no_order_and_stays_ahead(clock: Clock) -> None:
    router = made(clock, replicas=1)
    router.choose(asking(LATER, 9000))
    elsewhere = ReplicaLoad(2, 70, 20, 110)
    router.update_stats("r0", ReplicaStats(3, 0, 0, clock(), elsewhere))
    mine = router.snapshot().columns.for_urgency(URGENT)
    assert list(mine.prefill_tokens) == [70]
    assert list(mine.decode_tokens) == [20]
    assert list(mine.context_tokens) == [110]


def test_the_orders_account_for_everything_and_end_with_nothing(clock: Clock) -> None:
    rng = random.Random(5)
    router = made(clock, replicas=3)
    live = []
    for number in range(300):
        clock.now_s += rng.random() / 10
        if live and rng.random() < 0.5:
            reservation = live.pop(rng.randrange(len(live)))
            if rng.random() < 0.5:
                reservation.progress(rng.randrange(1, 5))
            reservation.release()
        else:
            live.append(
                router.choose(asking(rng.randrange(4), rng.randrange(1, 5000), f"n{number}"))
            )
        if rng.random() < 0.1:
            router.set_replicas(
                ReplicaInfo(f"r{n}", yielding_step_tokens=STEP) for n in rng.sample(range(5), 3)
            )
        columns = router.snapshot().columns
        for name in ("prefill_tokens", "decode_tokens", "context_tokens"):
            assert list(getattr(columns.for_urgency(3), name)) == list(getattr(columns, name))
            for urgency in range(3):
                less, more = columns.for_urgency(urgency), columns.for_urgency(urgency + 1)
                pairs = zip(getattr(less, name), getattr(more, name), strict=True)
                assert all(0 <= a <= b for a, b in pairs)
    for reservation in live:
        reservation.release()
    assert not any(router.snapshot().columns.prefill_tokens)
    assert not any(router.snapshot().columns.for_urgency(0).context_tokens)


class Learned:
    def __init__(self) -> None:
        self.ttft_s: list[float] = []

    def first_token(self, replica_id: str, outlook: Outlook, ttft_s: float) -> None:
        self.ttft_s.append(round(ttft_s, 3))

    def finished(self, *_: object) -> None: ...


def test_who_was_overtaken_teaches_no_latency(clock: Clock) -> None:
    learned = Learned()
    ledger = Ledger(clock, learned)
    batch = ledger.reserve(asking(LATER, 9000, "batch"), Decision("r", ""))
    chat = ledger.reserve(asking(URGENT, 500, "chat"), Decision("r", ""))
    clock.now_s += 0.1
    chat.progress(1)
    clock.now_s += 5.0
    batch.progress(1)
    assert learned.ttft_s == [0.1]
    another = ledger.reserve(asking(LATER, 10, "another"), Decision("r", ""))
    clock.now_s += 0.2
    another.progress(1)
    assert learned.ttft_s == [0.1, 0.2]


def _lines(work: int) -> Any:
    line = UrgencyColumns(1)
    line.change(0, 1, work, 100, work, work)
    return work_of({LATER: line})


def _nothing() -> Ahead:
    return Ahead([0], [0], [0], [0.0])
