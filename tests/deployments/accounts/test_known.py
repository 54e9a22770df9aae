"""What a gateway has heard of an account, and whether that leaves ample room."""

from __future__ import annotations

from decimal import Decimal

from deployments.gateway.accounts.amounts import (
    Ask,
    Code,
    Counted,
    Reply,
    Scope,
    Spending,
    bounds_of,
)
from deployments.gateway.accounts.known import AMPLE, Known
from weir.accounts import DAY_MS, MINUTE_MS
from weir.cost import Used
from weir.tenancy import Budget, BudgetStep, Quotas

NOW_MS = 1_795_776_612_000
STEPS = (
    BudgetStep(50, ("warn", "webhook")),
    BudgetStep(80, ("spill",)),
    BudgetStep(100, ("refuse",)),
)
SPENDING = Spending.of(Budget(Decimal("0.000001"), STEPS))  # 1000 nano-USD


class Bench:
    def __init__(self, quotas: Quotas, spending: Spending | None = None) -> None:
        self.now_ms = NOW_MS
        self.known = Known(lambda: self.now_ms)
        self.scope = Scope("t", "", bounds_of(quotas))
        self.spending = spending

    def hear(self, requests: int = 0, output: int = 0, spent: int = 0, at_ms: int = NOW_MS) -> None:
        minutely = daily = (requests, 0, output)
        counted = Counted(at_ms // MINUTE_MS, at_ms // DAY_MS, minutely, daily, 0)
        reply = Reply(Code.GRANTED, -1, -1, -1, at_ms, spent, (counted,))
        self.known.heard(Ask("t", (self.scope,), (), self.spending), reply)

    def ample(
        self, output: int = 10, nano_usd: int = 0, may_spill: bool = False, waiting: int = 0
    ) -> bool:
        steps: tuple[int, ...] = ()
        if self.spending is not None:
            steps = self.spending.stopping if may_spill else self.spending.refusing
        most = Used(5, 0, output)
        return self.known.ample("t", (self.scope,), most, nano_usd, steps, waiting)


def test_of_whom_nothing_was_heard_nothing_is_known() -> None:
    bench = Bench(Quotas(requests_per_day=1000))
    assert not bench.ample()
    bench.hear()
    assert bench.ample()
    other = (Scope("m:big", "", bounds_of(Quotas(requests_per_day=1000))),)
    assert not bench.known.ample("t", other, Used(), 0, (), 0)


def test_what_is_left_has_to_be_ample_for_all_that_wait() -> None:
    bench = Bench(Quotas(output_tokens_per_day=100 + 20 * AMPLE))
    bench.hear(output=100)
    assert bench.ample(output=20)
    assert not bench.ample(output=21)
    assert not bench.ample(output=20, waiting=1)
    assert bench.ample(output=10, waiting=1)


def test_another_minute_is_unused_and_what_was_heard_grows_old() -> None:
    bench = Bench(Quotas(requests_per_minute=20))
    bench.hear(requests=19)
    assert not bench.ample()
    bench.now_ms += MINUTE_MS
    assert bench.ample()
    bench.now_ms += 1
    assert not bench.ample()


def test_the_steps_that_stop_a_request_count() -> None:
    bench = Bench(Quotas(), SPENDING)
    bench.hear(spent=700)
    assert bench.ample(nano_usd=37)
    assert not bench.ample(nano_usd=38)
    assert bench.ample(nano_usd=12, may_spill=True)
    assert not bench.ample(nano_usd=13, may_spill=True)
    bench.now_ms += 40 * DAY_MS
    bench.hear(spent=0, at_ms=bench.now_ms)
    assert bench.ample(nano_usd=100, may_spill=True)
