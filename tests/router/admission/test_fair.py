"""Accounts, and the set of active ones."""

from __future__ import annotations

import random

from router.admission.fair import Account, ActiveSet, LazyMin


def active(*services: float) -> tuple[ActiveSet[Account], list[Account]]:
    accounts = [Account(f"t{n}", 1.0) for n in range(len(services))]
    for account, service in zip(accounts, services, strict=True):
        account.service = service
    chosen: ActiveSet[Account] = ActiveSet()
    for account in sorted(accounts, key=lambda a: a.service):
        chosen.add(account)
    return chosen, accounts


def test_weights_divide_costs():
    account = Account("t", 4.0)
    account.reserve(100.0)
    assert (account.service, account.rank) == (0.0, 25.0)
    account.serve(40.0, 30.0)  # 10 of it not expected
    assert (account.service, account.rank) == (10.0, 27.5)
    account.settle(70.0)
    assert (account.service, account.rank) == (10.0, 10.0)


def test_the_lift_is_to_the_least_service_not_rank():
    chosen, (a, b) = active(50.0, 80.0)
    a.reserve(1000.0)
    newcomer = Account("new", 1.0)
    chosen.add(newcomer)
    assert newcomer.service == 50.0
    assert chosen.first() is newcomer
    assert b.service == 80.0


def test_when_nobody_waits_the_last_to_leave_sets_the_floor():
    chosen, (a, b) = active(50.0, 80.0)
    chosen.leave(b)
    chosen.leave(a)
    a.serve(7.0, 0.0)  # still running: its service goes on
    newcomer = Account("new", 1.0)
    chosen.add(newcomer)
    assert newcomer.service == 57.0


def test_nobody_is_lowered():
    chosen, (_, b) = active(50.0, 80.0)
    chosen.leave(b)
    chosen.add(b)
    assert b.service == 80.0


def test_of_equals_the_one_served_longest_ago_goes_first():
    chosen, (a, b) = active(0.0, 0.0)
    turns = []
    for _ in range(6):
        first = chosen.first()
        assert first is not None
        turns.append(first)
        chosen.moved_on(first)
    assert turns == [a, b] * 3
    assert chosen.ranked() == [a, b]


def test_lazy_min_against_a_plain_minimum():
    rng = random.Random(5)
    heap: LazyMin[Account] = LazyMin(lambda account: account.service)
    accounts = [Account(str(n), 1.0) for n in range(20)]
    present: set[Account] = set()
    for _ in range(5000):
        account = rng.choice(accounts)
        action = rng.randrange(4)
        if action == 0:
            account.service = rng.uniform(0, 100)
            heap.put(account)
            present.add(account)
        elif action == 1:
            heap.drop(account)
            present.discard(account)
        else:
            account.service += rng.uniform(0, 10)
        least = heap.first()
        assert (least is None) == (not present)
        if least is not None:
            assert least.service == min(a.service for a in present)
        assert len(heap._heap) <= 2 * len(accounts) + 65
