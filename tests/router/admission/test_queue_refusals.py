"""Bounds, refusals, spilling, settlement exactly once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Refusal,
    Shed,
    Spill,
    Wait,
)
from router.types import RouteRequest
from weir.errors import BadRequestError, OverloadedError, RateLimitError

ONLY = ClassSettings("standard", 0, max_requests=10, max_bytes=1000, max_wait_s=30.0)


def make_queue(clock: Any, only: ClassSettings = ONLY, spill: Any = None, **more: Any) -> Any:
    return AdmissionQueue(AdmissionSettings(classes=(only,), **more), clock, spill=spill)


def test_a_full_queue_refuses_with_503(clock, make_request):
    queue = make_queue(clock)
    for n in range(10):
        assert isinstance(queue.offer(make_request(f"t{n}")), Wait)
    shed = queue.offer(make_request("late"))
    assert isinstance(shed, Shed)
    assert shed.reason is Refusal.QUEUE_FULL
    assert isinstance(shed.error, OverloadedError)
    assert shed.error.message == "the standard queue is full", "others' requests are not told"
    assert shed.retry_after_s == 1.0  # nothing is known yet about the drain rate
    assert len(queue) == 10


def test_bytes_are_bounded_too(clock, make_request):
    queue = make_queue(clock)
    assert isinstance(queue.offer(make_request("a"), 600), Wait)
    shed = queue.offer(make_request("b"), 401)
    assert isinstance(shed, Shed)
    assert shed.reason is Refusal.QUEUE_FULL
    assert isinstance(queue.offer(make_request("c"), 400), Wait)


def test_a_flooding_tenant_leaves_room_for_the_others(clock, make_request):
    queue = make_queue(clock, tenant_share_of_free=2.0)
    taken = [queue.offer(make_request("flood")) for _ in range(20)]
    assert sum(isinstance(outcome, Wait) for outcome in taken) == 7  # 6 waiting < 2 x 4 free
    refused = taken[-1]
    assert isinstance(refused, Shed)
    assert refused.reason is Refusal.TENANT_SHARE
    assert isinstance(refused.error, RateLimitError)
    assert isinstance(queue.offer(make_request("other")), Wait)


def test_retry_after_comes_from_the_drain_rate(clock, room, make_request):
    queue = make_queue(clock, drain_window_s=10.0)
    for n in range(10):
        queue.offer(make_request(f"t{n}"))
    for n in range(20):  # one request per 2 s, the queue always full again
        clock.now += 2.0
        queue.next(room)
        queue.offer(make_request(f"u{n}"))
    shed = queue.offer(make_request("late"))
    assert isinstance(shed, Shed)
    assert shed.retry_after_s == pytest.approx(10.0, rel=0.15)  # half of 10 requests x 2 s
    assert queue.stats()[0].drain_rate == pytest.approx(200 / 2.0, rel=0.15)


def test_idle_time_does_not_count_as_slow_draining(clock, room, make_request):
    queue = make_queue(clock)
    for n in range(100):  # one request per minute, dispatched within a tenth of a second
        queue.offer(make_request(f"t{n}"))
        clock.now += 0.1
        queue.next(room)
        clock.now += 59.9
    queue.offer(make_request("now"))
    assert queue.stats()[0].drain_rate == pytest.approx(200 / 0.1, rel=0.2)


def test_the_wait_limit(clock, room, make_request, expired):
    queue = make_queue(clock)
    first = make_request("a")
    assert queue.offer(first) == Wait(until_s=clock.now + 30)
    room.slots = 0
    assert queue.next(room) == Wait(until_s=clock.now + 30)
    clock.now += 10
    queue.offer(make_request("b"))
    clock.now += 20
    (shed,) = expired(queue)
    assert (shed.request, shed.reason) == (first, Refusal.WAIT_LIMIT)
    assert isinstance(shed.error, OverloadedError)
    assert expired(queue) == []
    assert len(queue) == 1


def test_a_hopeless_request_is_refused_at_the_door_where_the_class_sheds(clock, room, make_request):
    queue = make_queue(clock, replace(ONLY, on_hopeless="shed", max_wait_s=None))
    refused = queue.offer(make_request(deadline_s=clock.now - 1))
    assert isinstance(refused, Shed)
    assert refused.reason is Refusal.DEADLINE
    for _ in range(8):
        queue.offer(make_request("x"))
    for _ in range(4):  # 1 request per second: the other 4 will take 4 s
        clock.now += 1.0
        queue.next(room)
    assert isinstance(queue.offer(make_request("x", deadline_s=clock.now + 3)), Shed)
    assert isinstance(queue.offer(make_request("x", deadline_s=clock.now + 6)), Wait)
    assert isinstance(queue.offer(make_request("y", deadline_s=clock.now + 3)), Wait)


def test_unknown_class_and_repeated_id_are_errors(clock, make_request):
    queue = make_queue(clock)
    with pytest.raises(BadRequestError, match="known: standard") as raised:
        queue.offer(make_request(priority_class="royal"))
    assert raised.value.param == "priority_class"
    queue.offer(make_request(request_id="x"))
    with pytest.raises(ValueError, match="twice"):
        queue.offer(make_request(request_id="x"))


def test_every_end_happens_once(clock, room, make_request):
    queue = make_queue(clock)
    for name in ("done", "aborted", "waiting"):
        queue.offer(make_request(name, request_id=name))
    assert isinstance(queue.next(room), Dispatch)
    assert isinstance(queue.next(room), Dispatch)
    assert not queue.finish("waiting")
    assert not queue.give_back("waiting")
    assert [queue.finish("done"), queue.finish("done"), queue.cancel("done")] == [True, 0, 0]
    assert [queue.cancel("aborted"), queue.cancel("aborted")] == [True, False]
    assert [queue.cancel("waiting"), queue.cancel("waiting")] == [True, False]
    queue.progress("done", 5)  # too late: nothing happens
    assert (len(queue), queue.in_flight) == (0, 0)
    assert queue.next(room) == Wait()


def test_close_refuses_all_that_waits(clock, room, make_request):
    queue = make_queue(clock)
    for n in range(3):
        queue.offer(make_request(f"t{n}"))
    queue.next(room)
    refused = queue.close()
    assert [shed.reason for shed in refused] == [Refusal.CLOSED] * 2
    assert (len(queue), queue.in_flight) == (0, 1)


def test_the_spill_rule_is_asked_at_the_door_and_before_a_refusal(
    clock, room, make_request, expired
):
    asked = []

    def rule(request: RouteRequest, wait_s: float | None, refusal: Refusal | None) -> str | None:
        asked.append((request.tenant, refusal))
        return "overload" if request.tenant == "tail" or refusal else None

    queue = make_queue(clock, spill=rule)
    assert queue.offer(tail := make_request("tail")) == Spill(tail, "overload")
    assert queue.offer(kept := make_request("a")) == Wait(until_s=clock.now + 30)
    clock.now += 30
    assert expired(queue) == [Spill(kept, "overload", Refusal.WAIT_LIMIT, 1.0)]
    assert asked == [("tail", None), ("a", None), ("a", Refusal.WAIT_LIMIT)]
    assert len(queue) == 0


def test_stats(clock, room, make_request):
    queue = make_queue(clock)
    queue.offer(make_request("a"), 10)
    queue.offer(make_request("a"), 20)
    queue.offer(make_request("b", deadline_s=clock.now), 30)
    queue.next(room)
    (stats,) = queue.stats()
    assert (stats.waiting, stats.waiting_bytes, stats.late) == (2, 50, 1)
    assert (stats.in_flight, stats.tenants_waiting, stats.drain_rate) == (1, 2, None)


def test_idle_tenants_are_forgotten(clock, room, make_request):
    queue = make_queue(clock)
    for n in range(5000):
        request = make_request(f"t{n}")
        queue.offer(request)
        queue.next(room)
        queue.finish(request.request_id)
    assert len(queue._backlog.classes["standard"].tenants) <= 2048


def test_cancelled_requests_leave_no_heap_behind(clock, make_request):
    queue = make_queue(clock, replace(ONLY, max_requests=100_000))
    keep = make_request("a")
    queue.offer(keep)
    for _ in range(5000):
        request = make_request("a")
        queue.offer(request)
        queue.cancel(request.request_id)
    tenant = queue._backlog.classes["standard"].tenants["a"]
    assert len(tenant.queues[0]._heap) < 50
    assert len(queue._timers) < 300
