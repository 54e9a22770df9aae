"""The synchronous dispatcher: offers, waiters, moves, membership, avoidance, ends."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest

import router.scorers  # noqa: F401 - registers the policies
from router.admission import AdmissionSettings, ClassSettings, Failed, Shed, Ticket
from router.dispatcher import CROWDED_OFFERS, Dispatcher, Waiting
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, ReplicaLoad, RouteRequest
from router.view import View
from weir.errors import BadRequestError, NoReplicaError

ONE_CLASS = AdmissionSettings(classes=(ClassSettings("standard", 0, max_wait_s=60.0),))
OFF = replace(ONE_CLASS, enabled=False)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


class Site:
    def __init__(self, replicas: int = 2, settings: AdmissionSettings = ONE_CLASS) -> None:
        self.clock = Clock()
        self.router = Router(build_policy("weir"), self.clock, random.Random(1))
        self.members = [
            ReplicaInfo(f"r{n}", max_running=1, kv_blocks_total=10_000) for n in range(replicas)
        ]
        self.router.set_replicas(self.members)
        self.dispatcher = Dispatcher(self.router, settings, self.clock, self.clock)
        self.timers: list[float | None] = []
        self.dispatcher.set_timer = self.timers.append
        self._count = 0

    def request(self, **more: Any) -> RouteRequest:
        self._count += 1
        given: dict[str, Any] = {"prompt_tokens": 160, "max_output_tokens": 100, **more}
        given.setdefault("block_hashes", tuple(range(1, given["prompt_tokens"] // 16 + 1)))
        return RouteRequest(f"q{self._count}", "m", given.pop("tenant", "t"), **given)

    def ticket(self, **more: Any) -> Ticket:
        outcome = self.dispatcher.offer(self.request(**more))
        assert isinstance(outcome, Ticket)
        return outcome

    def waiting(self, **more: Any) -> Waiting:
        outcome = self.dispatcher.offer(self.request(**more))
        assert isinstance(outcome, Waiting)
        return outcome

    def load(self, replica_id: str) -> ReplicaLoad:
        return self.router.own_load(replica_id)

    def is_clean(self) -> bool:
        """Nothing waits, nothing runs, nothing is reserved."""
        queue = self.dispatcher.queue
        busy = [self.load(info.replica_id) for info in self.router.members]
        return not len(self.dispatcher) and not queue.in_flight and set(busy) <= {ReplicaLoad()}


class TestOffer:
    def test_room_gives_a_ticket_and_no_room_a_place_in_the_queue(self):
        site = Site(replicas=1)
        first, second = site.ticket(), site.waiting()
        settled: list[Waiting] = []
        second.on_settled = settled.append
        assert (len(site.dispatcher), second.outcome) == (1, None)
        first.close()
        assert settled == [second]
        assert isinstance(second.outcome, Ticket)
        second.outcome.close()
        assert site.is_clean()

    def test_the_preferred_replica_is_left_out_when_it_is_full(self):
        site = Site(replicas=3)
        assert site.router.compares
        first = site.ticket()
        holder = first.grant.replica_id
        view = site.router.view()
        request = site.request()
        assert site.members[site.router.preferred(request, view)].replica_id != holder
        others = [site.ticket().grant.replica_id for _ in range(2)]
        assert sorted([holder, *others]) == ["r0", "r1", "r2"]
        site.waiting()

    def test_where_the_preferred_one_was_full_the_next_are_decided_the_usual_way(self, monkeypatch):
        site = Site(replicas=1)
        asked: list[str] = []
        prefer = site.router.preferred

        def watched(request: RouteRequest, view: View) -> int:
            asked.append(request.request_id)
            return prefer(request, view)

        monkeypatch.setattr(site.router, "preferred", watched)
        first = site.ticket()
        site.dispatcher.cancel(site.waiting())  # q2 found it full
        first.close()
        for _ in range(CROWDED_OFFERS + 1):
            site.ticket().close()
        assert asked == ["q1", "q2", f"q{CROWDED_OFFERS + 3}"]

    def test_a_policy_that_draws_is_not_asked_twice(self):
        site = Site()
        drawing = Router(build_policy("power-of-two"), site.clock, random.Random(1))
        assert not drawing.compares

    def test_expected_output_is_filled_in_from_what_was_learned(self):
        site = Site(replicas=1, settings=OFF)
        assert site.ticket(max_output_tokens=5000).request.expected_output_tokens == 256
        for _ in range(100):
            ticket = site.ticket(max_output_tokens=5000)
            ticket.progress(1000)
            ticket.close(complete=True)
        found = site.ticket(max_output_tokens=5000).request.expected_output_tokens
        assert found == pytest.approx(1000, rel=0.15)
        assert site.ticket(max_output_tokens=20).request.expected_output_tokens == 20
        assert site.ticket(max_output_tokens=0).request.expected_output_tokens == 0
        said = site.ticket(max_output_tokens=5000, expected_output_tokens=7)
        assert said.request.expected_output_tokens == 7

    def test_a_request_broken_off_does_not_teach_a_short_answer(self):
        site = Site(replicas=1, settings=OFF)
        for _ in range(100):
            ticket = site.ticket(max_output_tokens=5000)
            ticket.progress(3)
            ticket.close()
        assert site.ticket(max_output_tokens=5000).request.expected_output_tokens >= 256

    def test_the_caller_learns_why_it_is_refused(self):
        classes = (ClassSettings("standard", 0, max_requests=1),)
        site = Site(replicas=1, settings=AdmissionSettings(classes=classes))
        site.ticket()
        site.waiting()
        refused = site.dispatcher.offer(site.request(tenant="other"))
        assert isinstance(refused, Shed)
        assert refused.error.retry_after_s is not None

    def test_an_unknown_class_leaves_nothing_behind(self):
        site = Site()
        with pytest.raises(BadRequestError, match="standard"):
            site.dispatcher.offer(site.request(priority_class="nonsense"))
        assert site.is_clean()

    def test_a_wait_limit_is_told_as_a_timer(self):
        site = Site(replicas=1)
        site.ticket()
        waiting = site.waiting()
        assert site.dispatcher.next_timer_s() == site.timers[-1] == 160.0
        site.clock.now_s = 160.0
        site.dispatcher.wake()
        assert isinstance(waiting.outcome, Shed)
        assert site.dispatcher.next_timer_s() is None

    def test_cancelled_before_and_after_the_dispatch(self):
        site = Site(replicas=1)
        first, gone, late = site.ticket(), site.waiting(), site.waiting()
        site.dispatcher.cancel(gone)
        first.close()
        assert gone.outcome is None
        assert isinstance(late.outcome, Ticket)
        site.dispatcher.cancel(late)
        assert site.is_clean()

    def test_closing_refuses_who_waits_and_who_comes(self):
        site = Site(replicas=1)
        first, waiting = site.ticket(), site.waiting()
        site.dispatcher.close()
        assert isinstance(waiting.outcome, Shed)
        assert isinstance(site.dispatcher.offer(site.request()), Shed)
        first.close()
        assert site.is_clean()


class TestWithoutAdmission:
    def test_nothing_ever_waits(self):
        site = Site(replicas=1, settings=OFF)
        tickets = [site.ticket() for _ in range(5)]
        assert site.load("r0").requests == 5
        assert len({ticket.priority for ticket in tickets}) == 5
        for ticket in tickets:
            ticket.close()
        assert site.is_clean()

    def test_no_replica_is_said_at_once(self):
        site = Site(replicas=0, settings=OFF)
        refused = site.dispatcher.offer(site.request())
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, NoReplicaError)
        assert site.is_clean()


class TestMove:
    def test_what_is_left_to_do_is_counted_on_the_new_replica_only(self):
        site = Site()
        ticket = site.ticket(expected_output_tokens=50)
        old = ticket.grant.replica_id
        ticket.progress(1)
        ticket.progress(19)
        new = ticket.move({old}).replica_id
        assert new != old
        assert site.load(old) == ReplicaLoad()
        assert site.load(new) == ReplicaLoad(1, 160 + 20, 50 - 20, 160 + 20)
        ticket.progress(1)
        assert site.load(new) == ReplicaLoad(1, 0, 29, 181)
        ticket.close(complete=True)
        assert site.is_clean()

    def test_moved_twice_the_prompt_is_never_counted_twice(self):
        site = Site(replicas=3)
        ticket = site.ticket(expected_output_tokens=50)
        ticket.progress(10)
        left = {ticket.grant.replica_id}
        left.add(ticket.move(left).replica_id)
        ticket.progress(5)
        last = ticket.move(left).replica_id
        assert site.load(last) == ReplicaLoad(1, 175, 35, 175)
        assert (ticket.output_tokens, ticket.request.prompt_tokens) == (15, 160)

    def test_only_what_the_client_has_is_resumed_if_that_is_less(self):
        site = Site()
        ticket = site.ticket(expected_output_tokens=50)
        ticket.progress(20)
        new = ticket.move({ticket.grant.replica_id}, resumed_tokens=12).replica_id
        assert site.load(new) == ReplicaLoad(1, 172, 38, 172)
        assert ticket.output_tokens == 12

    def test_the_best_cached_prefix_is_preferred_and_spares_prefill(self):
        site = Site(replicas=3)
        ticket = site.ticket(expected_output_tokens=50)
        old = ticket.grant.replica_id
        ticket.progress(16)
        holder, _ = sorted({"r0", "r1", "r2"} - {old})
        hashes = ticket.request.block_hashes
        site.router.index.stored(holder, hashes)
        assert ticket.move({old}).replica_id == holder
        assert site.load(holder).prefill_tokens == 16

    def test_the_first_progress_after_a_move_lets_the_next_one_in(self):
        members = [ReplicaInfo("r0"), ReplicaInfo("r1")]
        site = Site(replicas=0)
        site.router.set_replicas(members[:1])
        ticket = site.ticket(prompt_tokens=10_000)
        ticket.progress(1)
        site.router.set_replicas(members[1:])  # the old one is gone
        ticket.move({"r0"})
        waiting = site.waiting(prompt_tokens=10_000, block_hashes=())
        ticket.progress(1)
        assert isinstance(waiting.outcome, Ticket)

    def test_without_another_replica_the_old_grant_stays_until_it_is_closed(self):
        site = Site()
        ticket = site.ticket()
        grant = ticket.grant
        with pytest.raises(NoReplicaError):
            ticket.move({"r0", "r1"})
        assert ticket.grant is grant
        assert site.load(grant.replica_id).requests == 1
        ticket.close()
        assert site.is_clean()

    def test_the_tenant_is_charged_for_the_prompt_once(self):
        site = Site(settings=AdmissionSettings(classes=(ClassSettings("standard", 0),)))
        moved, stayed = site.ticket(tenant="moved"), site.ticket(tenant="stayed")
        for ticket in (moved, stayed):
            ticket.progress(10)
        moved.move(set())
        for ticket in (moved, stayed):
            ticket.progress(10)
            ticket.close(complete=True)
        tenants = site.dispatcher.queue._backlog.classes["standard"].tenants
        assert tenants["moved"].service == tenants["stayed"].service


class TestMembership:
    def test_a_new_replica_lets_waiters_in(self):
        site = Site(replicas=0)
        waiting = site.waiting()
        site.router.set_replicas([ReplicaInfo("r0")])
        assert isinstance(waiting.outcome, Ticket)

    def test_listeners_hear_of_changes_only(self):
        site = Site(replicas=1)
        heard: list[tuple[list[str], list[str]]] = []
        site.router.listeners.append(
            lambda old, new: heard.append(
                ([i.replica_id for i in old], [i.replica_id for i in new])
            )
        )
        site.router.set_replicas(site.members)
        assert heard == []
        site.router.set_replicas([*site.members, ReplicaInfo("r9")])
        site.router.set_replicas([ReplicaInfo("r9")])
        assert heard == [(["r0"], ["r0", "r9"]), (["r0", "r9"], ["r9"])]


class TestAvoid:
    def test_an_avoided_replica_is_left_out_until_its_time(self):
        site = Site(settings=OFF)
        site.router.avoid("r0", 110.0)
        assert {site.ticket().grant.replica_id for _ in range(4)} == {"r1"}
        site.clock.now_s = 110.0
        assert site.router.avoided() == frozenset()
        assert site.ticket(block_hashes=()).grant.replica_id == "r0"

    def test_it_is_chosen_if_nobody_else_is_left(self):
        site = Site(settings=OFF)
        site.router.avoid("r0", math.inf)
        site.router.avoid("r1", math.inf)
        assert site.ticket().grant.replica_id in {"r0", "r1"}
        ticket = site.ticket()
        assert ticket.move({"r1"}).replica_id == "r0"

    def test_waiters_wait_rather_than_take_it_and_are_woken_in_time(self):
        site = Site()
        site.router.avoid("r0", 110.0)
        assert site.ticket().grant.replica_id == "r1"
        waiting = site.waiting()
        assert site.dispatcher.next_timer_s() == 110.0
        site.clock.now_s = 110.0
        site.dispatcher.wake()
        assert isinstance(waiting.outcome, Ticket)
        assert waiting.outcome.grant.replica_id == "r0"

    def test_taking_it_back_lets_waiters_in_at_once(self):
        site = Site()
        site.router.avoid("r0", math.inf)
        site.ticket()
        waiting = site.waiting()
        assert site.dispatcher.next_timer_s() == 160.0, "infinity is no timer"
        site.router.avoid("r0", 0.0)
        assert isinstance(waiting.outcome, Ticket)

    def test_strangers_and_the_departed_are_forgotten(self):
        site = Site()
        site.router.avoid("stranger", math.inf)
        site.router.avoid("r0", math.inf)
        site.router.set_replicas(site.members[1:])
        site.router.set_replicas(site.members)
        assert site.router.avoided() == frozenset()


def test_nothing_leaks_whatever_happens():
    rng = random.Random(5)
    site = Site(replicas=3)
    live: list[Ticket] = []
    waiting: list[Waiting] = []
    offered = 0
    for _ in range(3000):
        site.clock.now_s += rng.random() / 10
        action = rng.randrange(7)
        if action <= 1:
            offered += 1
            outcome = site.dispatcher.offer(site.request(prompt_tokens=rng.randint(1, 3000)))
            if isinstance(outcome, Ticket):
                live.append(outcome)
            elif isinstance(outcome, Waiting):
                waiting.append(outcome)
        elif action == 2 and live:
            rng.choice(live).progress(rng.randrange(4))
        elif action == 3 and live:
            ticket = live.pop(rng.randrange(len(live)))
            ticket.close(complete=rng.random() < 0.5)
            ticket.progress(3)
        elif action == 4 and live:
            try:
                rng.choice(live).move({f"r{rng.randrange(3)}"})
            except NoReplicaError:
                assert len(site.router.members) < 2
        elif action == 5:
            members = rng.sample(site.members, rng.randint(0, 3))
            site.router.set_replicas(members)
            if members:
                site.router.avoid(members[0].replica_id, site.clock.now_s + rng.random())
        elif action == 6 and waiting:
            site.dispatcher.cancel(waiting.pop(rng.randrange(len(waiting))))
        site.dispatcher.wake()
        live += [w.outcome for w in waiting if isinstance(w.outcome, Ticket)]
        waiting = [w for w in waiting if w.outcome is None]
        assert site.dispatcher.queue.in_flight == len(live)
        assert len(site.dispatcher) == len(waiting)
    assert offered > 500
    site.router.set_replicas(site.members)
    live += [w.outcome for w in waiting if isinstance(w.outcome, Ticket)]
    while live:
        live.pop().close()
        live += [w.outcome for w in waiting if isinstance(w.outcome, Ticket)]
        waiting = [w for w in waiting if w.outcome is None]
    assert site.is_clean()
