"""The script against an account as simple as it can be, and whole months of days."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis as redis_client
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deployments.gateway.accounts.amounts import (
    UNBOUNDED,
    Amount,
    Ask,
    Code,
    Hold,
    Reply,
    Scope,
    Spending,
    Spent,
    Step,
)
from deployments.gateway.accounts.book import Book
from deployments.gateway.accounts.script import SCRIPT
from deployments.redis_server import RedisServer
from tests.deployments.accounts.plain import LEASE_MS, PlainAccount
from weir.accounts import (
    MONEY_FIELD,
    AccountKeys,
    ScopeUse,
    Standing,
    month_name,
    month_of,
    spent_nano_usd,
    standing_of,
    step_of,
)

KEYS = AccountKeys.of("t")
#: 23:58:30 on the last day of a month.
START_MS = int(datetime(2028, 2, 29, 23, 58, 30, tzinfo=UTC).timestamp() * 1000)
STEPS = (
    Step(50, 500, webhook=True, warn=True),
    Step(80, 800, spill=True),
    Step(100, 1000, refuse=True, webhook=True),
)


class Caller:
    """Calls the script at any time."""

    def __init__(self, client: redis_client.Redis) -> None:
        self.client = client
        self._script = client.register_script(SCRIPT)

    def __call__(self, gateway: str, kind: str, now_ms: int, *rest: Any) -> list[Any]:
        operation = [kind, now_ms, gateway, LEASE_MS, *rest]
        return self._script(dataclasses.astuple(KEYS), [msgspec.msgpack.encode(operation)])  # type: ignore[no-any-return, arg-type]

    def reserve(self, gateway: str, ask: Ask, now_ms: int, told: bool = False) -> list[Any]:
        return self(gateway, "reserve", now_ms, *ask.packed(told))


amounts = st.builds(
    Amount, st.integers(0, 1), st.integers(0, 40), st.integers(0, 60), st.integers(0, 1)
)
bounds = st.tuples(*(st.sampled_from([UNBOUNDED, most]) for most in (3, 60, 80, 8, 150, 200, 3)))


class Machine(RuleBasedStateMachine):
    """Gateways reserve, settle, repeat themselves and die; time goes on, at times for long."""

    port: int

    def __init__(self) -> None:
        super().__init__()
        self.client = redis_client.Redis(port=self.port, socket_timeout=10)
        self.client.flushall()
        self.call = Caller(self.client)
        self.plain = PlainAccount()
        self.now_ms = START_MS
        self.ids = itertools.count(1)
        self.open: list[tuple[str, Hold]] = []
        self.settled: list[tuple[str, Spent]] = []

    def teardown(self) -> None:
        self.client.close()

    @initialize(tenant=bounds, model=bounds, has_budget=st.booleans())
    def limits(self, tenant: tuple[int, ...], model: tuple[int, ...], has_budget: bool) -> None:
        self.scopes = (Scope("t", "", tenant), Scope("m:x", "", model))
        self.spending = Spending(1000, STEPS) if has_budget else None

    @rule(
        gateway=st.sampled_from("abc"),
        parts=st.lists(st.tuples(amounts, st.integers(0, 300)), min_size=1, max_size=2),
        may_spill=st.booleans(),
    )
    def reserve(self, gateway: str, parts: list[tuple[Amount, int]], may_spill: bool) -> None:
        holds = tuple(
            Hold(
                next(self.ids),
                nano_usd if self.spending else 0,
                tuple((scope.name, amount) for scope in self.scopes),
            )
            for amount, nano_usd in parts
        )
        ask = Ask("t", self.scopes, holds, self.spending, may_spill)
        right = self.plain.reserve(gateway, ask, self.now_ms)
        reply = Reply.read(self.call.reserve(gateway, ask, self.now_ms))
        assert reply == right
        if reply.code == Code.GRANTED:
            self.open += [(gateway, hold) for hold in holds]

    @rule(data=st.data(), count=st.integers(1, 3))
    def settle(self, data: st.DataObject, count: int) -> None:
        if not self.open:
            return
        gateway = data.draw(st.sampled_from(sorted({name for name, _ in self.open})))
        own = [each for each in self.open if each[0] == gateway][:count]
        spent = []
        for each in own:
            self.open.remove(each)
            hold = each[1]
            share = data.draw(st.floats(0, 1))
            used = tuple(
                (n, Amount(*(int(share * a) for a in amount[:3]))) for n, amount in hold.amounts
            )
            spent.append(Spent(hold.id, int(share * hold.nano_usd), used if share else ()))
            self.settled.append((gateway, spent[-1]))
        self.plain.settle(gateway, [(each, True) for each in spent], self.now_ms)
        self.call(gateway, "settle", self.now_ms, *(each.packed(True) for each in spent))

    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        """Its acknowledgement was lost."""
        if self.settled:
            gateway, spent = data.draw(st.sampled_from(self.settled))
            self.plain.settle(gateway, [(spent, False)], self.now_ms)
            self.call(gateway, "settle", self.now_ms, spent.packed(False))

    @rule(gateway=st.sampled_from("abc"))
    def renew(self, gateway: str) -> None:
        self.plain.heard(gateway, self.now_ms)
        self.call(gateway, "renew", self.now_ms)

    @rule(ms=st.sampled_from([1, 500, 4_000, 11_000, 60_000, 3_600_000]))
    def time_goes_on(self, ms: int) -> None:
        self.now_ms += ms

    @invariant()
    def nothing_is_exceeded(self) -> None:
        for scope in getattr(self, "scopes", ()):
            counted = self.plain.counted(scope.name, self.now_ms)
            late = any(h.taken_back for h in self.plain.held) or self.settled_late()
            for bound, most in enumerate(scope.bounds):
                assert most < 0 or counted.of(bound) <= most or late

    def settled_late(self) -> bool:
        """Whether a gateway was taken for dead: what it has used comes on top of what was let in
        meanwhile."""
        return len(self.plain.leases) < 3 and self.now_ms > START_MS + LEASE_MS

    @invariant()
    def steps_are_told_once(self) -> None:
        listed = self.client.hgetall(KEYS.steps)
        told = [step_of("t", name.decode(), text) for name, text in listed.items()]  # type: ignore[union-attr]
        assert {(s.month, s.percent) for s in told} == {
            (month_name(month), percent) for month, percent in self.plain.steps
        }
        assert len(told) == len(self.plain.steps)


def test_it_counts_as_a_plain_account_does(redis_server: RedisServer) -> None:
    class Bound(Machine):
        port = redis_server.port

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Bound, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


def test_months_are_those_of_the_calendar(redis: redis_client.Redis) -> None:
    day = date(1999, 12, 1)
    for _ in range(366 * 6):
        day += timedelta(days=1)
        days = (day - date(1970, 1, 1)).days
        assert month_of(days) == day.year * 12 + day.month - 1
        assert month_name(month_of(days)) == f"{day:%Y-%m}"
    call = Caller(redis)
    spending = Spending(10**6, ())
    spending = dataclasses.replace(spending, steps=(Step(100, 10**6, refuse=True),))
    days_seen = [date(2026, 1, 31), date(2026, 2, 1), date(2028, 2, 29), date(2028, 3, 1)]
    for number, day in enumerate([*days_seen, date(2100, 2, 28), date(2100, 3, 1)]):
        now_ms = (day - date(1970, 1, 1)).days * 86_400_000
        call.reserve("g", Ask("t", (), (Hold(number, 1, ()),), spending), now_ms)
        raw = redis.hget(KEYS.used, MONEY_FIELD)
        month, spent, _ = msgspec.msgpack.decode(raw)  # type: ignore[arg-type]
        assert (month, spent) == (day.year * 12 + day.month - 1, 1)
        assert spent_nano_usd(raw, now_ms) == 1  # type: ignore[arg-type]
        assert spent_nano_usd(raw, now_ms + 40 * 86_400_000) == 0  # type: ignore[arg-type]


def test_large_amounts_stay_whole(redis: redis_client.Redis) -> None:
    call = Caller(redis)
    whole = 9_000_000 * 10**9  # nine million USD
    spending = Spending(whole, (Step(100, whole, refuse=True, webhook=True),))
    odd = whole // 2 + 1
    for number in (1, 2):
        ask = Ask("t", (), (Hold(number, odd, ()),), spending)
        reply = Reply.read(call.reserve("g", ask, START_MS))
    assert reply.code == Code.BUDGET
    assert reply.spent_nano_usd == odd
    [(name, text)] = redis.hgetall(KEYS.steps).items()  # type: ignore[union-attr]
    assert step_of("t", name.decode(), text).spent_nano_usd == 2 * odd
    assert step_of("t", name.decode(), text).id == "t:2028-02:100"


def test_what_is_only_told_is_counted_once_and_never_refused(redis: redis_client.Redis) -> None:
    call = Caller(redis)
    scope = Scope("t", "", (1, *[UNBOUNDED] * 6))
    ask = Ask("t", (scope,), (Hold(7, 0, (("t", Amount(1, 5, 5, 1)),)),))
    full = Ask("t", (scope,), (Hold(1, 0, (("t", Amount(1)),)),))
    assert call.reserve("g", full, START_MS)[0] == Code.GRANTED
    assert Reply.read(call.reserve("g", ask, START_MS, told=True)).counted[0].minutely == (2, 5, 5)
    assert call.reserve("g", ask, START_MS, told=True) == [1]
    spent = Spent(7, 0, (("t", Amount(1, 5, 3)),))
    for first in (True, False, False):
        call("g", "settle", START_MS, spent.packed(first))
    reply = Reply.read(
        call.reserve("g", dataclasses.replace(full, holds=(Hold(9, 0, ()),)), START_MS)
    )
    assert reply.counted[0].minutely == (2, 5, 3)
    assert reply.counted[0].concurrent == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_book_of_a_gateway_that_is_alone_counts_the_same(
    redis: redis_client.Redis, seed: int
) -> None:
    import random

    rng, now = random.Random(seed), [START_MS]
    call, book = Caller(redis), Book(lambda: now[0])
    scopes = (Scope("t", "", (4, 60, 80, 9, 150, 200, 3)), Scope("k:1", "", (3, *[UNBOUNDED] * 6)))
    spending = Spending(1000, STEPS)
    open_: list[Hold] = []
    for number in range(300):
        now[0] += rng.choice([0, 10, 2_000, 9_000])
        if open_ and rng.random() < 0.45:
            hold = open_.pop(rng.randrange(len(open_)))
            used = tuple((n, Amount(*(a // 2 for a in amount[:3]))) for n, amount in hold.amounts)
            spent = Spent(hold.id, hold.nano_usd // 3, used)
            book.settle("t", [spent])
            call("g", "settle", now[0], spent.packed(True))
            continue
        amount = Amount(1, rng.randrange(30), rng.randrange(40), 1)
        hold = Hold(number, rng.randrange(200), tuple((s.name, amount) for s in scopes))
        ask = Ask("t", scopes, (hold,), spending, rng.random() < 0.3)
        reply = Reply.read(call.reserve("g", ask, now[0]))
        assert book.reserve(ask) == reply
        open_ += [hold] if reply.code == Code.GRANTED else []


def test_others_read_what_a_tenant_has_used(redis: redis_client.Redis) -> None:
    call = Caller(redis)
    scopes = (Scope("t", "", (9, *[UNBOUNDED] * 6)), Scope("k:1", "", (9, *[UNBOUNDED] * 6)))
    hold = Hold(1, 250, (("t", Amount(1, 5, 7, 1)), ("k:1", Amount(1, 5, 7, 1))))
    call.reserve("g", Ask("t", scopes, (hold,), Spending(1000, STEPS)), START_MS)

    def told(now_ms: int) -> Standing:
        return standing_of(redis.hgetall(KEYS.used), now_ms)  # type: ignore[arg-type]

    use = ScopeUse((1, 5, 7), (1, 5, 7), 1)
    assert told(START_MS) == Standing(250, {"t": use, "k:1": use})
    later = ScopeUse((0, 0, 0), (1, 5, 7), 1)
    assert told(START_MS + 60_000).scopes["t"] == later
    tomorrow = told(START_MS + 120_000)  # and the next month
    assert tomorrow == Standing(0, {"t": ScopeUse(concurrent=1), "k:1": ScopeUse(concurrent=1)})
