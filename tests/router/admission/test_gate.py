"""The asyncio door: order of waking, one-step choose, and no leak at any cancellation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Any

import pytest

from router.admission import (
    AdmissionSettings,
    ClassSettings,
    Refusal,
    SpilledError,
)
from router.admission.gate import Gate
from router.dispatcher import Dispatcher
from router.ledger import Reservation
from router.router import Router
from router.scorers.least_outstanding import LeastOutstanding, LeastOutstandingParams
from router.types import ReplicaInfo, RouteRequest
from router.view import View
from weir.errors import NoReplicaError, OverloadedError, RateLimitError

CLASSES = (
    ClassSettings("interactive", 0, max_wait_s=None),
    ClassSettings("standard", 1, max_requests=8, max_wait_s=None),
)


class WatchedRouter(Router):
    """Notes what it was asked to leave out; ``instead`` is called before a choice."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(LeastOutstanding(LeastOutstandingParams()), clock, random.Random(7))
        self.chosen: list[tuple[str, Collection[str]]] = []
        self.before: Callable[[], None] = lambda: None

    def choose(
        self, request: RouteRequest, exclude: Collection[str] = (), view: View | None = None
    ) -> Reservation:
        self.chosen.append((request.request_id, exclude))
        self.before()
        return super().choose(request, exclude, view)


class Site:
    """A router over replicas of one slot each, with a gate before it."""

    def __init__(self, clock: Callable[[], float], replicas: int = 1, **more: Any) -> None:
        self.router = WatchedRouter(clock)
        self.members = [ReplicaInfo(f"r{n}", max_running=1) for n in range(replicas)]
        self.router.set_replicas(self.members)
        settings = more.pop("settings", AdmissionSettings(classes=CLASSES))
        self.dispatcher = Dispatcher(self.router, settings, clock, clock, **more)
        self.queue = self.dispatcher.queue
        self.gate = Gate(self.dispatcher)

    def is_clean(self) -> bool:
        """Nothing waits, nothing is in flight, nothing is reserved."""
        loads = [view.load.requests for view in self.router.snapshot().replicas]
        return not (len(self.queue) or self.queue.in_flight or len(self.gate) or any(loads))


@pytest.fixture
def site(clock: Any) -> Site:
    return Site(clock)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(site: Site, request: RouteRequest, until: asyncio.Event, log: list[str]) -> None:
    async with site.gate.admit(request):
        log.append(request.request_id)
        await until.wait()


async def test_a_free_replica_is_entered_without_waiting(site, make_request):
    admission = site.gate.admit(make_request())
    with pytest.raises(StopIteration) as stop:  # no suspension: the first step is the last
        admission.__aenter__().send(None)
    ticket = stop.value.value
    assert ticket.grant.replica_id == "r0"
    ticket.close()
    assert site.is_clean()


async def test_waiters_run_in_the_queues_order(site, make_request):
    log: list[str] = []
    free = [asyncio.Event() for _ in range(4)]
    names = [("standard", "s1"), ("standard", "s2"), ("interactive", "i1"), ("interactive", "i2")]
    tasks = []
    for event, (name, request_id) in zip(free, names, strict=True):
        request = make_request(priority_class=name, request_id=request_id)
        tasks.append(asyncio.create_task(hold(site, request, event, log)))
        await settle()
    for index in (0, 2, 3, 1):
        free[index].set()
        await settle()
    await asyncio.gather(*tasks)
    assert log == ["s1", "i1", "i2", "s2"]
    assert site.is_clean()


async def test_many_freed_at_once_wake_in_dispatch_order(clock, make_request):
    site = Site(clock, replicas=0)
    log: list[str] = []
    done = asyncio.Event()
    done.set()
    requests = [make_request(f"t{n}") for n in range(8)]
    tasks = [asyncio.create_task(hold(site, r, done, log)) for r in requests]
    await settle()
    assert log == []
    site.router.set_replicas([ReplicaInfo(f"r{n}") for n in range(8)])
    await asyncio.gather(*tasks)
    assert log == [r.request_id for r in requests]
    assert site.is_clean()


async def test_saturated_replicas_are_left_out_of_the_choice(clock, make_request):
    site = Site(clock, replicas=2)
    async with site.gate.admit(make_request()) as first, site.gate.admit(make_request()) as second:
        assert second.grant.replica_id != first.grant.replica_id
    assert site.is_clean()


async def test_the_first_token_lets_the_next_one_in(clock, make_request):
    site = Site(clock, replicas=1)
    site.router.set_replicas([ReplicaInfo("r0")])
    log: list[str] = []
    async with site.gate.admit(make_request(prompt=10_000)) as ticket:
        task = asyncio.create_task(hold(site, make_request(), asyncio.Event(), log))
        await settle()
        assert log == []  # the prefill allowance is taken
        ticket.progress(1)
        await settle()
        assert len(log) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert site.is_clean()


async def test_refusals_are_raised(site, make_request):
    async with site.gate.admit(make_request()):
        tasks = [
            asyncio.create_task(hold(site, make_request(f"t{n}"), asyncio.Event(), []))
            for n in range(8)
        ]
        await settle()
        with pytest.raises(OverloadedError, match="queue is full") as full:
            await site.gate.admit(make_request("z")).__aenter__()
        assert full.value.retry_after_s is not None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        flood = [
            asyncio.create_task(hold(site, make_request("flood"), asyncio.Event(), []))
            for n in range(8)
        ]
        await settle()
        raised = [t.exception() for t in flood if t.done()]
        assert raised
        assert all(isinstance(error, RateLimitError) for error in raised)
        site.gate.close()
        ended = await asyncio.gather(*flood, return_exceptions=True)
        assert all(isinstance(error, OverloadedError | RateLimitError) for error in ended)
        with pytest.raises(OverloadedError, match="closing"):
            await site.gate.admit(make_request("after")).__aenter__()
    assert site.is_clean()


async def test_the_wait_limit_is_kept_by_a_timer(make_request):
    loop = asyncio.get_running_loop()
    only = ClassSettings("standard", 0, max_wait_s=0.02)
    site = Site(loop.time, replicas=0, settings=AdmissionSettings(classes=(only,)))
    with pytest.raises(OverloadedError, match=r"limit of 0\.02"):
        await site.gate.admit(make_request()).__aenter__()
    assert site.is_clean()
    assert site.gate._timer is None


async def test_a_spill_is_raised_with_its_reason(clock, make_request):
    def rule(request: RouteRequest, wait_s: float | None, refusal: Refusal | None) -> str:
        return "long-tail"

    site = Site(clock, spill=rule)
    request = make_request()
    with pytest.raises(SpilledError) as raised:
        await site.gate.admit(request).__aenter__()
    spill = raised.value.spill
    assert (spill.request.request_id, spill.reason) == (request.request_id, "long-tail")
    assert spill.refusal is None
    assert isinstance(raised.value, OverloadedError)
    assert site.is_clean()


async def test_what_choose_raises_reaches_its_own_waiter_only(site, make_request):
    log: list[str] = []
    first_done = asyncio.Event()
    first = asyncio.create_task(hold(site, make_request(), first_done, log))
    await settle()
    second = asyncio.create_task(hold(site, make_request(), asyncio.Event(), log))
    await settle()

    def broken() -> None:
        raise NoReplicaError("gone")

    site.router.before = broken
    first_done.set()
    await first  # frees the slot, which dispatches the second; it must not see the error
    with pytest.raises(NoReplicaError):
        await second
    assert site.is_clean()


async def test_a_wake_from_within_choose_is_not_nested(clock, make_request):
    """Nested, it would see the room that the choice under way is about to take."""
    site = Site(clock, replicas=0)
    inside: list[int] = []
    site.router.before = site.gate.wake

    async def one(request: RouteRequest) -> None:
        async with site.gate.admit(request):
            inside.append(site.queue.in_flight)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(make_request())) for _ in range(3)]
    await settle()
    site.router.set_replicas([ReplicaInfo("r0", max_running=1)])
    await asyncio.gather(*tasks)
    assert inside == [1, 1, 1]
    assert site.is_clean()


class TestCancellation:
    async def test_before_the_first_step(self, site, make_request):
        task = asyncio.create_task(hold(site, make_request(), asyncio.Event(), []))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert site.is_clean()

    async def test_while_waiting(self, site, make_request):
        async with site.gate.admit(make_request()):
            task = asyncio.create_task(hold(site, make_request(), asyncio.Event(), []))
            await settle()
            assert len(site.gate) == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(site.gate) == 0
        assert site.is_clean()

    async def test_after_the_dispatch_before_the_task_runs(self, site, make_request):
        log: list[str] = []
        first = await site.gate.admit(make_request()).__aenter__()
        task = asyncio.create_task(hold(site, make_request("b"), asyncio.Event(), log))
        await settle()
        first.close()  # dispatches the waiter, whose task has not run yet
        assert site.queue.in_flight == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert log == []
        assert site.is_clean()

    async def test_cancelled_first_and_dispatched_then(self, site, make_request):
        first = await site.gate.admit(make_request()).__aenter__()
        task = asyncio.create_task(hold(site, make_request("b"), asyncio.Event(), []))
        await settle()
        task.cancel()
        first.close()  # the cancelled task is still in the queue, and is dispatched
        assert site.queue.in_flight == 1
        await asyncio.gather(task, return_exceptions=True)
        assert site.is_clean()

    async def test_a_freed_place_goes_to_the_next_waiter(self, site, make_request):
        log: list[str] = []
        first = await site.gate.admit(make_request()).__aenter__()
        done = asyncio.Event()
        gone = asyncio.create_task(hold(site, make_request("b"), done, log))
        await settle()
        stays = asyncio.create_task(hold(site, make_request("c"), done, log))
        await settle()
        first.close()
        gone.cancel()
        await settle()
        assert len(log) == 1
        done.set()
        await asyncio.gather(gone, stays, return_exceptions=True)
        assert site.is_clean()

    async def test_inside_the_body(self, site, make_request):
        log: list[str] = []
        task = asyncio.create_task(hold(site, make_request(), asyncio.Event(), log))
        await settle()
        assert len(log) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert site.is_clean()

    async def test_refused_and_cancelled_at_once(self, site, make_request):
        async with site.gate.admit(make_request()):
            task = asyncio.create_task(hold(site, make_request(), asyncio.Event(), []))
            await settle()
            site.gate.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert site.is_clean()

    async def test_a_capacity_that_fails_leaves_nothing_behind(self, site, make_request):
        def broken(**_: bool) -> View:
            raise RuntimeError("no snapshot")

        site.router.view = broken
        with pytest.raises(RuntimeError, match="no snapshot"):
            await site.gate.admit(make_request()).__aenter__()
        del site.router.view
        assert site.is_clean()

    async def test_at_random_moments(self, clock, make_request):
        rng = random.Random(11)
        site = Site(clock, replicas=3)
        tasks: list[asyncio.Task[None]] = []

        async def one(request: RouteRequest) -> None:
            async with site.gate.admit(request) as ticket:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                    ticket.progress(1)

        for n in range(400):
            name = rng.choice(["interactive", "standard"])
            tasks.append(asyncio.create_task(one(make_request(f"t{n % 5}", name))))
            for task in rng.sample(tasks, min(len(tasks), rng.randrange(3))):
                task.cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert site.is_clean()
        kinds = {type(e) for e in ended}
        assert {type(None), asyncio.CancelledError} <= kinds
        assert kinds <= {type(None), asyncio.CancelledError, OverloadedError, RateLimitError}


async def test_a_closed_ticket_does_not_touch_a_later_request_of_the_same_id(site, make_request):
    old = await site.gate.admit(make_request(request_id="x")).__aenter__()
    old.close()
    async with site.gate.admit(make_request(request_id="x")):
        old.close()
        old.give_back()
        old.progress(5)
        assert site.queue.in_flight == 1
    assert site.is_clean()


async def test_a_replica_may_come_back_by_the_timer(make_request):
    """Avoided for a while, it is taken again without any other event; alone it is taken at once."""
    loop = asyncio.get_running_loop()
    site = Site(loop.time, replicas=2)
    async with site.gate.admit(make_request()) as first:
        other = ({"r0", "r1"} - {first.grant.replica_id}).pop()
        site.router.avoid(other, loop.time() + 0.02)
        async with asyncio.timeout(5), site.gate.admit(make_request()) as second:
            assert second.grant.replica_id == other
            assert second.waited_s > 0.01
    assert site.is_clean()
