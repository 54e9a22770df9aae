"""Who runs next: classes, tenants, deadlines, ageing, room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Refusal,
    Share,
    Shed,
    Wait,
)
from router.admission.waiting import HELD_BACK_S, MAX_LOOKS
from router.types import RouteRequest

INTERACTIVE = ClassSettings("interactive", 0, max_wait_s=None)
STANDARD = ClassSettings("standard", 1, max_wait_s=None, share=Share(0.8, 0.8, 0.8))
BATCH = ClassSettings("batch", 2, max_wait_s=None, share=Share(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Told:
    """A forecast as the test tells it."""

    uncached_tokens: int
    first_s: float = 0.0
    last_s: float = 0.0

    def first_token_s(self) -> float:
        return self.first_s

    def last_token_s(self) -> float:
        return self.last_s


def settings(*classes: ClassSettings, **more: Any) -> AdmissionSettings:
    return AdmissionSettings(classes=classes or (INTERACTIVE, STANDARD, BATCH), **more)


def run(queue: AdmissionQueue, room: Any, count: int = 1_000_000) -> list[RouteRequest]:
    """Dispatch up to ``count`` requests; none of them finishes."""
    order = []
    while len(order) < count:
        outcome = queue.next(room)
        if isinstance(outcome, Wait):
            break
        assert isinstance(outcome, Dispatch)
        order.append(outcome.request)
    return order


def ids(requests: list[RouteRequest]) -> list[str]:
    return [r.request_id for r in requests]


def test_classes_of_lower_order_go_strictly_first(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for name in ("batch", "standard", "interactive"):
        for n in range(3):
            queue.offer(make_request(priority_class=name, request_id=f"{name}{n}"))
    assert ids(run(queue, room)) == [
        f"{name}{n}" for name in ("interactive", "standard", "batch") for n in range(3)
    ]


def test_classes_of_one_order_share_by_weight(clock, room, make_request):
    heavy = ClassSettings("heavy", 0, weight=3.0)
    light = ClassSettings("light", 0, weight=1.0)
    queue = AdmissionQueue(settings(heavy, light), clock)
    for _ in range(100):
        queue.offer(make_request(priority_class="heavy"))
        queue.offer(make_request(priority_class="light"))
    first = run(queue, room, 40)
    assert sum(r.priority_class == "heavy" for r in first) == 30


def test_tenants_share_by_tokens_not_by_requests(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for _ in range(40):
        queue.offer(make_request("long", prompt=900, output=50))
        queue.offer(make_request("short", prompt=100, output=50))
    first = run(queue, room, 36)
    assert sum(r.tenant == "short" for r in first) == 30  # 200 : 1000 weighted tokens


def test_tenant_weights_scale_their_shares(clock, room, make_request):
    queue = AdmissionQueue(settings(tenant_weights={"a": 2.0}), clock)
    for _ in range(30):
        queue.offer(make_request("a"))
        queue.offer(make_request("b"))
    assert sum(r.tenant == "a" for r in run(queue, room, 30)) == 20


def test_a_weight_that_changes_counts_from_the_next_request_on(clock, room, make_request):
    weights = {"a": 1.0}
    queue = AdmissionQueue(settings(tenant_weights={"b": 1.0}), clock, weights=weights.get)
    for _ in range(90):
        queue.offer(make_request("a"))
        queue.offer(make_request("b"))
    assert sum(r.tenant == "a" for r in run(queue, room, 30)) == 15
    weights["a"] = 2.0
    queue.offer(make_request("a"))
    order = run(queue, room, 45)
    # Its 15 in flight weigh half of what they did: it first draws level, then has two of three.
    assert [r.tenant for r in order[:15]] == ["a"] * 15
    assert sum(r.tenant == "a" for r in order[15:]) == 20
    del weights["a"]
    queue.offer(make_request("a"))
    assert [r.tenant for r in run(queue, room, 20)] == ["b"] * 20, "the settings' weight again"


def test_a_weight_that_changes_leaves_nothing_reserved(clock, room, make_request):
    weights = {"a": 3.0}
    queue = AdmissionQueue(settings(), clock, weights=weights.get)
    for _ in range(4):
        queue.offer(make_request("a"))
    running = run(queue, room, 4)
    weights["a"] = 0.7
    queue.offer(make_request("a"))
    for request in running:
        queue.progress(request.request_id, request.expected_output_tokens)
    assert all(queue.finish(request.request_id) for request in running[1:])
    account = queue._backlog.classes[running[0].priority_class].tenants["a"]
    assert account.pending == pytest.approx(0.0, abs=1e-9)
    assert queue.finish(running[0].request_id)
    assert (account.pending, account.in_flight, account.weight) == (0.0, 0, 0.7)


def test_a_tenant_back_from_idle_has_banked_nothing(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for _ in range(40):
        queue.offer(make_request("busy"))
    for request in run(queue, room, 20):
        queue.progress(request.request_id, request.expected_output_tokens)
        queue.finish(request.request_id)
    for _ in range(20):
        queue.offer(make_request("back"))
    # Without the lift, "back" would run all of its 20 before "busy" ran again.
    assert sum(r.tenant == "busy" for r in run(queue, room, 10)) == 5


def test_a_newcomer_first_draws_level_with_what_others_hold_in_flight(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for _ in range(40):
        queue.offer(make_request("busy"))
    run(queue, room, 8)
    for _ in range(20):
        queue.offer(make_request("new"))
    tenants = [r.tenant for r in run(queue, room, 12)]
    assert tenants[:8] == ["new"] * 8
    assert sorted(tenants[8:]) == ["busy", "busy", "new", "new"]


def test_output_beyond_the_estimate_costs_the_tenant_its_turn(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for tenant in ("a", "b"):
        for n in range(20):
            queue.offer(make_request(tenant, request_id=f"{tenant}-{n}"))
    assert {r.tenant for r in run(queue, room, 2)} == {"a", "b"}
    queue.progress("a-0", 1050)  # 1000 beyond: 2000 weighted tokens, ten requests' worth
    assert [r.tenant for r in run(queue, room, 9)] == ["b"] * 9


def test_unused_estimate_is_given_back(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for tenant in ("a", "b"):
        for n in range(30):
            queue.offer(make_request(tenant, prompt=0, output=100, request_id=f"{tenant}-{n}"))
    assert {r.request_id for r in run(queue, room, 2)} == {"a-0", "b-0"}
    queue.progress("a-0", 10)
    queue.finish("a-0")  # a used 20 of its 200
    assert ids(run(queue, room, 1)) == ["a-1"]


def test_cached_prompt_tokens_cost_less(clock, room, make_request):
    queue = AdmissionQueue(settings(cached_weight=0.0), clock)
    for tenant in ("a", "b"):
        for n in range(10):
            queue.offer(make_request(tenant, prompt=1000, output=1, request_id=f"{tenant}-{n}"))
    assert {r.request_id for r in run(queue, room, 2)} == {"a-0", "b-0"}
    queue.progress("b-0", 0, cached_tokens=1000)
    assert ids(run(queue, room, 1)) == ["b-1"]


def test_give_back_charges_nothing_and_finish_charges_the_prompt(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    for tenant in ("a", "b"):
        for n in range(10):
            queue.offer(make_request(tenant, prompt=500, request_id=f"{tenant}-{n}"))
    run(queue, room, 2)
    assert queue.give_back("b-0")
    assert queue.finish("a-0")
    assert ids(run(queue, room, 1)) == ["b-1"]
    assert queue.in_flight == 1


@pytest.mark.parametrize("key", ["tenant", "priority_class"])
def test_equals_take_turns_even_when_their_dispatches_come_to_nothing(
    clock, room, make_request, key
):
    queue = AdmissionQueue(settings(ClassSettings("x", 0), ClassSettings("y", 0)), clock)
    for name in ("x", "y"):
        for _ in range(4):
            tenant = name if key == "tenant" else "t"
            queue.offer(make_request(tenant, priority_class=name if key != "tenant" else "x"))
    turns = []
    for _ in range(6):
        (request,) = run(queue, room, 1)
        queue.give_back(request.request_id)
        turns.append(getattr(request, key))
    assert turns == ["x", "y"] * 3


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("fifo", ["big", "small", "urgent"]),
        ("deadline", ["urgent", "small", "big"]),
        ("short-first", ["urgent", "small", "big"]),
    ],
)
def test_order_of_one_tenants_own_requests(clock, room, make_request, within, expected):
    only = replace(STANDARD, within=within, short_first_s_per_1k_tokens=1.0)
    queue = AdmissionQueue(settings(only), clock)
    queue.offer(make_request(prompt=5000, request_id="big"))
    clock.now += 1.0
    queue.offer(make_request(prompt=500, request_id="small", deadline_s=clock.now + 90))
    queue.offer(make_request(prompt=100, request_id="urgent", deadline_s=clock.now + 50))
    assert ids(run(queue, room)) == expected


def test_short_first_lets_a_long_prompt_be_overtaken_for_a_bounded_time(clock, room, make_request):
    only = replace(STANDARD, within="short-first", short_first_s_per_1k_tokens=1.0)
    queue = AdmissionQueue(settings(only), clock)
    queue.offer(make_request(prompt=5000, request_id="big"))
    clock.now += 5.0
    queue.offer(make_request(prompt=100, request_id="small"))
    assert ids(run(queue, room)) == ["big", "small"]


def test_what_is_cached_does_not_make_a_prompt_long(clock, room, make_request):
    only = replace(STANDARD, within="short-first", short_first_s_per_1k_tokens=1.0)
    queue = AdmissionQueue(settings(only), clock)
    queue.offer(make_request(prompt=500, request_id="small"))
    queue.offer(make_request(prompt=9000, request_id="cached"), expected=Told(10))
    assert ids(run(queue, room)) == ["cached", "small"]


def test_lateness_takes_no_tenants_turn_away(clock, room, make_request, expired):
    """Who sends most is late most; served only after everybody else's, it would get least."""
    queue = AdmissionQueue(settings(), clock)
    for n in range(20):
        queue.offer(make_request("many", deadline_s=clock.now + 1, request_id=f"many{n}"))
    clock.now += 2
    for n in range(20):
        queue.offer(make_request("few", request_id=f"few{n}"))
    assert expired(queue) == []
    assert queue.stats()[1].late == 20
    first = [request.tenant for request in run(queue, room, 20)]
    assert first.count("many") == first.count("few") == 10


def test_of_one_tenant_the_late_ones_wait_for_those_in_time_and_are_aged(clock, room, make_request):
    queue = AdmissionQueue(settings(ageing_after_s=5.0, ageing_every=10), clock)
    queue.offer(make_request(deadline_s=clock.now + 1, request_id="late"))
    queue.offer(make_request(deadline_s=clock.now + 1, request_id="later"))
    turns = []
    for n in range(30):
        clock.now += 2.0
        queue.offer(make_request(request_id=f"new{n}"))
        turns += ids(run(queue, room, 1))
    assert turns[:10] == [f"new{n}" for n in range(10)]
    assert [turns.index("late"), turns.index("later")] == [10, 21]


def test_a_prompt_held_back_for_the_caches_holds_no_other_tenant_back(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    queue.offer(make_request("a", request_id="cold"))
    queue.offer(make_request("b", request_id="warm"))
    room.blocked, room.spared = {"cold"}, {"cold"}
    assert ids(run(queue, room)) == ["warm"]
    room.blocked = set()
    assert ids(run(queue, room)) == ["cold"]


def test_a_prompt_held_back_for_the_caches_does_not_hold_back_its_own_tenant(
    clock, room, make_request
):
    queue = AdmissionQueue(settings(), clock)
    for name in ("cold1", "cold2", "warm1", "warm2"):
        queue.offer(make_request("a", request_id=name))
    room.blocked = room.spared = {"cold1", "cold2"}
    assert ids(run(queue, room)) == ["warm1", "warm2"]
    queue.offer(make_request("a", request_id="full"))
    queue.offer(make_request("a", request_id="behind"))
    clock.now += HELD_BACK_S
    room.blocked = {"cold1", "cold2", "full"}
    assert ids(run(queue, room)) == []  # nothing slips past one that only lacks room
    room.blocked = room.spared = set()
    assert ids(run(queue, room)) == ["cold1", "cold2", "full", "behind"]


def test_many_held_back_are_passed_over_in_a_few_goes(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    cold = [f"cold{n}" for n in range(3 * MAX_LOOKS)]
    for name in (*cold, "warm"):
        queue.offer(make_request("a", request_id=name))
    room.blocked = room.spared = set(cold)
    assert [name for _ in range(4) for name in ids(run(queue, room))] == ["warm"]
    assert len(room.asked) <= 4 * MAX_LOOKS + 1
    assert set(cold) <= {name for name, _ in room.asked}


class Sparing:
    """Room for everything but ``cold``, which only ageing lets in."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return None if self.holds_back(request, share) else frozenset()

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return request.request_id == "cold" and not share.crowd_out


def test_what_overtakes_a_late_prompt_held_back_leaves_it_its_turn_of_ageing(clock, make_request):
    one = ClassSettings("standard", 0, ttft_slo_ms=1000, max_wait_s=None)
    queue = AdmissionQueue(settings(one, ageing_every=8, ageing_after_s=1.0), clock)
    queue.offer(make_request("a", request_id="cold"))
    clock.now += 600.0
    served: list[str] = []
    for n in range(12):
        clock.now += 1.0
        late = make_request("a", request_id=f"late{n}")
        queue.offer(msgspec.structs.replace(late, arrival_s=clock.now - 60.0))
        served += ids(run(queue, Sparing(), 1))
    assert served.index("cold") == 8


def test_a_tenant_with_far_more_in_flight_than_others_leaves_them_head_room(
    clock, room, make_request
):
    heavy = {"prefill": 0.25, "running": 0.9}
    queue = AdmissionQueue(settings(limits={"heavy-tenant": heavy}), clock)
    for name in ("a", "b", "c"):
        queue.offer(make_request(name))
    run(queue, room)
    for _ in range(7):
        queue.offer(make_request("a"))
    run(queue, room)
    room.asked.clear()
    queue.offer(make_request("a", request_id="more"))
    queue.offer(make_request("b", request_id="other"))
    run(queue, room)
    assert dict(room.asked) == {
        "more": Share(0.25, 0.9),
        "other": Share(),
    }


def test_a_prompt_without_room_holds_everyone_of_its_class_back(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    queue.offer(make_request("a", request_id="large"))
    queue.offer(make_request("b", request_id="small"))
    room.blocked = {"large"}
    assert ids(run(queue, room)) == []


def test_a_request_past_hope_runs_after_those_in_time(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    queue.offer(make_request(request_id="late", deadline_s=clock.now + 1))
    queue.offer(make_request(request_id="in-time"))
    queue.offer(make_request(priority_class="batch", request_id="batch"))
    clock.now += 2
    assert ids(run(queue, room)) == ["in-time", "late", "batch"]


def test_the_forecast_decides_what_can_still_be_in_time(clock, room, make_request):
    slow = Told(100, 0.4, 3.0)
    slo = replace(INTERACTIVE, ttft_slo_ms=1000.0, on_hopeless="shed")
    queue = AdmissionQueue(settings(slo, STANDARD), clock)
    assert isinstance(queue.offer(make_request(deadline_s=clock.now + 2.9), expected=slow), Wait)
    assert queue.stats()[1].late == 1  # standard: kept, run last
    outcome = queue.offer(make_request(priority_class="interactive"), expected=slow)
    assert outcome == Wait(until_s=pytest.approx(clock.now + 0.6))
    clock.now += 0.61
    shed = queue.next(room)
    assert isinstance(shed, Shed)
    assert shed.reason is Refusal.DEADLINE
    assert len(queue) == 1


def test_ageing_runs_one_of_a_starved_class_and_protects_it_in_the_engine(
    clock, room, make_request
):
    queue = AdmissionQueue(settings(ageing_after_s=5.0, ageing_every=10), clock)
    for n in range(3):
        queue.offer(make_request(priority_class="batch", request_id=f"batch{n}"))
    turns = []
    for n in range(40):
        clock.now += 1.0
        queue.offer(make_request(priority_class="interactive", request_id=f"i{n}"))
        outcome = queue.next(room)
        assert isinstance(outcome, Dispatch)
        if outcome.request.request_id.startswith("batch"):
            turns.append(n)
            assert outcome.priority < 1 << 52  # rank 0, among the interactive
        queue.finish(outcome.request.request_id)
    assert turns == [10, 21, 32]


def test_ageing_needs_time_as_well_as_dispatches(clock, room, make_request):
    queue = AdmissionQueue(settings(ageing_after_s=5.0, ageing_every=2), clock)
    queue.offer(make_request(priority_class="batch", request_id="batch"))
    for _ in range(20):
        queue.offer(make_request(priority_class="interactive"))
    assert all(r.priority_class == "interactive" for r in run(queue, room, 10))
    clock.now += 5.0
    assert ids(run(queue, room, 1)) == ["batch"]


def test_a_starved_request_without_room_is_waited_for_in_the_end(clock, room, make_request):
    queue = AdmissionQueue(settings(ageing_after_s=0.0, ageing_every=5), clock)
    queue.offer(make_request(priority_class="batch", request_id="huge"))
    room.blocked.add("huge")
    for _ in range(100):
        queue.offer(make_request(priority_class="interactive"))
    assert len(run(queue, room)) == 20  # 4 x ageing_every, then everything is held back
    room.blocked.clear()
    assert ids(run(queue, room, 1)) == ["huge"]
    assert len(run(queue, room)) == 80


def test_ageing_asks_for_the_full_share(clock, room, make_request):
    queue = AdmissionQueue(settings(ageing_after_s=0.0, ageing_every=1), clock)
    queue.offer(make_request(priority_class="batch", request_id="batch"))
    for _ in range(3):
        queue.offer(make_request(priority_class="interactive"))
    run(queue, room, 2)
    assert room.asked[-1] == ("batch", Share(crowd_out=True))


def test_a_blocked_head_blocks_what_is_behind_it(clock, room, make_request):
    queue = AdmissionQueue(settings(), clock)
    queue.offer(make_request(priority_class="interactive", request_id="large"))
    queue.offer(make_request("b", priority_class="interactive", request_id="small"))
    queue.offer(make_request(priority_class="batch", request_id="batch"))
    room.blocked.add("large")
    assert queue.next(room) == Wait()
    room.blocked.clear()
    assert ids(run(queue, room)) == ["large", "small", "batch"]


def test_within_a_level_another_class_may_have_the_room(clock, room, make_request):
    wide = ClassSettings("wide", 0)
    narrow = ClassSettings("narrow", 0, share=Share(0.5, 0.5, 0.5))
    queue = AdmissionQueue(settings(wide, narrow), clock)
    queue.offer(make_request(priority_class="narrow", request_id="narrow"))
    queue.offer(make_request(priority_class="wide", request_id="wide"))
    room.blocked.add("narrow")
    assert ids(run(queue, room)) == ["wide"]


def test_a_class_keeps_to_its_share_only_while_one_before_it_is_active(clock, room, make_request):
    queue = AdmissionQueue(settings(limits={"head-room": {"after_s": 10.0}}), clock)

    def share_of_a_batch_request() -> Share:
        request = make_request(priority_class="batch")
        queue.offer(request)
        outcome = queue.next(room)
        assert isinstance(outcome, Dispatch)
        assert outcome.saturated == {"full-replica"}
        queue.finish(request.request_id)
        return room.asked[-1][1]

    half, full = Share(0.5, 0.5, 0.5), Share()
    assert share_of_a_batch_request() == full
    queue.offer(make_request(priority_class="interactive", request_id="i"))
    queue.next(room)
    clock.now += 60
    assert share_of_a_batch_request() == half  # still in flight
    queue.finish("i")
    assert share_of_a_batch_request() == full
    queue.offer(make_request(priority_class="standard", request_id="s"))
    queue.next(room)
    queue.finish("s")
    clock.now += 9.9
    assert share_of_a_batch_request() == half  # served lately
    clock.now += 0.1
    assert share_of_a_batch_request() == full


def test_the_most_urgent_class_always_keeps_to_its_share(clock, room, make_request):
    queue = AdmissionQueue(settings(ClassSettings("only", 0, share=Share(0.3))), clock)
    queue.offer(make_request(priority_class="only", request_id="x"))
    queue.next(room)
    assert room.asked == [("x", Share(0.3))]


def test_engine_priorities_follow_the_queue(clock, room, make_request):
    wall = [1_800_000_000.0]
    queue = AdmissionQueue(settings(), clock, wall_clock=lambda: wall[0])
    numbers: dict[str, list[int]] = {"interactive": [], "standard": [], "batch": []}
    for n in range(12):
        name = ("batch", "interactive", "standard")[n % 3]
        queue.offer(make_request(priority_class=name))
        outcome = queue.next(room)
        assert isinstance(outcome, Dispatch)
        numbers[name].append(outcome.priority)
        wall[0] += (-0.5, 0.0, 1.0)[n % 3]  # a wall clock may step back
    for own in numbers.values():
        assert own == sorted(set(own))
    assert max(numbers["interactive"]) < min(numbers["standard"])
    assert max(numbers["standard"]) < min(numbers["batch"]) < 2**62
