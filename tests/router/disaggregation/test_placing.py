"""Placements in fleets with roles: who gets what, and that nothing stays reserved."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router.scorers  # noqa: F401 - registers the policies
from router.admission import Refused, Ticket
from router.dispatcher import Waiting
from router.shipped import RoutingProfile
from router.types import ReplicaInfo, Role, RouteRequest


class Site:
    """A dispatcher on a clock of its own, over replicas ``r0``, ``r1``, ... of these roles."""

    def __init__(self, roles: Sequence[Role], rule: str = "always", **params: object) -> None:
        self.now_s = 0.0
        profile = RoutingProfile(rule=rule, rule_params=params)
        clock = self._clock
        self.dispatcher = profile.dispatcher(clock, clock, random.Random(5))
        self.router = self.dispatcher.router
        self.set_roles(roles)

    def _clock(self) -> float:
        return self.now_s

    def set_roles(self, roles: Sequence[Role]) -> None:
        """The replicas that there are."""
        self.router.set_replicas(
            ReplicaInfo(f"r{i}", kv_blocks_total=4096, block_size=16, role=role)
            for i, role in enumerate(roles)
        )

    def offer(self, name: str, prompt: int = 1600, output: int = 50) -> Ticket | Waiting | Refused:
        """A request whose prefix is ``name``'s own."""
        request = RouteRequest(
            name,
            "m",
            "t",
            prompt,
            output,
            output,
            block_hashes=tuple(hash((name, i)) for i in range(prompt // 16)),
            arrival_s=self.now_s,
        )
        return self.dispatcher.offer(request)

    def ticket(self, name: str, **more: int) -> Ticket:
        """The same, for one that runs at once."""
        outcome = self.offer(name, **more)
        assert isinstance(outcome, Ticket)
        return outcome

    def load(self, replica: str) -> tuple[int, int, int, int]:
        """Requests, prefill, decode and context tokens."""
        load = self.router.own_load(replica)
        return load.requests, load.prefill_tokens, load.decode_tokens, load.context_tokens

    def total(self) -> int:
        """Of everything on everybody."""
        return sum(sum(self.load(info.replica_id)) for info in self.router.members)


def test_each_side_has_its_part() -> None:
    site = Site(["prefill", "decode"])
    ticket = site.ticket("a")
    assert ticket.grant.replica_id == "r1"
    assert ticket.grant.prefill is not None
    assert ticket.grant.prefill.replica_id == "r0"
    assert site.load("r0") == (1, 1600, 1, 1600)
    assert site.load("r1") == (1, 0, 50, 1600)
    ticket.prefill_done()
    assert site.load("r0") == (1, 0, 1, 1601)
    ticket.transferred(1600, 0.01)
    assert site.load("r0") == (0, 0, 0, 0)
    assert site.load("r1") == (1, 0, 50, 1600)
    ticket.progress(10)
    assert site.load("r1") == (1, 0, 40, 1610)
    ticket.close(complete=True)
    assert site.total() == 0


def test_a_failed_transfer_makes_the_prompt_work_of_the_answering_replica() -> None:
    site = Site(["prefill", "decode"])
    ticket = site.ticket("a")
    ticket.transfer_failed()
    assert site.load("r0") == (0, 0, 0, 0)
    assert site.load("r1") == (1, 1600, 50, 1600)
    ticket.progress(1)
    assert site.load("r1") == (1, 0, 49, 1601)
    ticket.close()
    assert site.total() == 0


def test_a_pair_that_broke_is_placed_anew() -> None:
    site = Site(["prefill", "prefill", "decode", "decode"])
    ticket = site.ticket("a")
    first = {ticket.grant.replica_id}
    assert ticket.grant.prefill is not None
    first.add(ticket.grant.prefill.replica_id)
    ticket.move(first)
    second = ticket.grant
    assert second.prefill is not None
    assert not first & {second.replica_id, second.prefill.replica_id}
    assert all(site.load(replica) == (0, 0, 0, 0) for replica in first)
    ticket.close()
    assert site.total() == 0


def test_without_prefill_replicas_the_others_do_everything() -> None:
    site = Site(["prefill", "decode"])
    ticket = site.ticket("a")
    ticket.move({"r0"})
    assert (ticket.grant.replica_id, ticket.grant.prefill) == ("r1", None)
    assert site.load("r1") == (1, 1600, 50, 1600)
    ticket.close()


def test_prefill_replicas_answer_only_when_nobody_else_is_left() -> None:
    site = Site(["prefill", "decode"], rule="never")
    assert site.ticket("a").grant.replica_id == "r1"
    ticket = site.ticket("b")
    ticket.move({"r1"})
    assert ticket.grant.replica_id == "r0"


def test_roles_change_while_requests_run() -> None:
    site = Site(["mixed", "mixed"])
    whole = site.ticket("a")
    assert whole.grant.prefill is None
    site.set_roles(["prefill", "decode"])
    pair = site.ticket("b")
    assert pair.grant.prefill is not None
    assert (pair.grant.prefill.replica_id, pair.grant.replica_id) == ("r0", "r1")
    site.set_roles(["mixed", "mixed"])
    for ticket in (whole, pair):
        ticket.progress(1)
        ticket.close()
    assert site.total() == 0


def test_blocks_that_either_side_holds_are_spared() -> None:
    site = Site(["prefill", "prefill", "decode", "decode"])
    first = site.ticket("a")
    first.progress(1)
    first.close(complete=True)
    again = site.ticket("a", prompt=1616)
    assert first.grant.prefill is not None
    assert again.grant.prefill is not None
    assert again.grant.prefill.replica_id == first.grant.prefill.replica_id
    assert again.grant.replica_id == first.grant.replica_id
    assert site.load(again.grant.prefill.replica_id)[1] == 16


def test_a_request_waits_while_the_way_that_its_rule_wants_has_no_room() -> None:
    site = Site(["prefill", "decode"])
    first = site.ticket("a", prompt=8000)
    second = site.offer("b", prompt=8000)
    assert isinstance(second, Waiting)
    assert second.outcome is None
    first.prefill_done()
    assert isinstance(second.outcome, Ticket)


def test_an_answering_replica_that_computes_a_prompt_still_decodes_for_others() -> None:
    site = Site(["prefill", "decode"], rule="llm-d", uncached_tokens=2000)
    short = site.ticket("a", prompt=1600)
    assert short.grant.prefill is None
    long = site.ticket("b", prompt=8000)
    assert long.grant.prefill is not None
    assert long.grant.replica_id == "r1"


def test_without_roles_the_rule_is_not_asked() -> None:
    site = Site(["mixed", "mixed"], rule="always")
    assert not site.router.places
    assert site.ticket("a").grant.prefill is None


def test_mixed_replicas_are_pairs_only_if_told() -> None:
    assert not Site(["mixed", "mixed"], rule="adaptive").router.places
    assert Site(["mixed", "mixed"], rule="adaptive", pairs_of_mixed=True).router.places
    assert not Site(["mixed"], rule="adaptive", pairs_of_mixed=True).router.places


ROLES = st.lists(st.sampled_from(["mixed", "prefill", "decode"]), min_size=1, max_size=5)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["offer", "ready", "moved", "failed", "progress", "move", "close", "roles", "wait"]
        ),
        st.integers(0, 50),
    ),
    max_size=60,
)


@pytest.mark.parametrize("rule", ["adaptive", "always", "dynamo", "llm-d", "never"])
@settings(max_examples=60, deadline=None)
@given(roles=ROLES, steps=STEPS)
def test_nothing_stays_reserved_whatever_happens(
    rule: str, roles: list[Role], steps: list[tuple[str, int]]
) -> None:
    site = Site(roles, rule)
    waiting: list[Waiting] = []
    tickets: list[Ticket] = []
    for number, (step, value) in enumerate(steps):
        site.now_s += 0.01 * value
        if step == "offer":
            outcome = site.offer(f"q{value}-{number}", prompt=1 + 199 * value, output=1 + value)
            if isinstance(outcome, Ticket):
                tickets.append(outcome)
            elif isinstance(outcome, Waiting):
                waiting.append(outcome)
        elif step == "roles":
            site.set_roles(roles[value % len(roles) :] + roles[: value % len(roles)])
        elif tickets:
            _do(step, tickets[value % len(tickets)], value, roles)
    for left in waiting:
        site.dispatcher.cancel(left)
    for ticket in tickets:
        ticket.close()
    for left in waiting:
        if isinstance(left.outcome, Ticket):
            left.outcome.close()
    assert site.total() == 0
    assert len(site.dispatcher) == 0
    placing = site.router.placing
    assert placing is not None
    for info in site.router.members:
        pace = placing.pace.of(info.replica_id)
        assert (pace.decoding, pace.frailty, pace.urgency) == (0, 0.0, 0.0)


def _do(step: str, ticket: Ticket, value: int, roles: Sequence[Role]) -> None:
    if step == "ready":
        ticket.prefill_done()
    elif step == "moved":
        ticket.transferred(100 * value, 0.001 * value)
    elif step == "failed":
        ticket.transfer_failed()
    elif step == "progress":
        ticket.progress(value)
    elif step == "close":
        ticket.close(complete=bool(value % 2))
    elif step == "move" and len(roles) > 1 and not ticket.grant.released:
        ticket.move({ticket.grant.replica_id})
