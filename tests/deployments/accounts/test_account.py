"""One request's account: what is reserved, given back, paid, told and refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from deployments.gateway.accounts import (
    Account,
    Book,
    BudgetSpillError,
    Later,
    LocalStore,
    Most,
    Tab,
)
from deployments.gateway.accounts.headers import WARNING
from weir.cost import Used
from weir.errors import InsufficientQuotaError, RateLimitError, error_headers
from weir.tenancy import NO_QUOTAS, Budget, BudgetStep, Key, Quotas, Tenant

#: 12 seconds and a half into a minute.
NOW_MS = int(datetime(2026, 11, 27, 10, 30, 12, 500_000, UTC).timestamp() * 1000)
KEY = Key("k1", "t", "", quotas=Quotas(requests_per_minute=5))
TENANT = Tenant(
    "t",
    quotas=Quotas(
        requests_per_minute=10,
        prompt_tokens_per_minute=1000,
        output_tokens_per_day=500,
        concurrent_requests=3,
    ),
    model_quotas={"big": Quotas(output_tokens_per_minute=200, requests_per_day=4)},
)
STEPS = (
    BudgetStep(50, ("warn",)),
    BudgetStep(80, ("spill",)),
    BudgetStep(100, ("refuse",)),
)
BUDGET = Budget(Decimal("0.000001"), STEPS)  # 1000 nano-USD


class Bench:
    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.book = Book(lambda: self.now_ms)
        self.account = Account(LocalStore(self.book), lambda: self.now_ms)

    def open(self, tenant: Tenant = TENANT, key: Key | None = KEY) -> Tab:
        tab = self.account.open(tenant, key)
        assert tab is not None
        return tab

    def counts(self, scope: str) -> tuple[int, int, int, int]:
        """Requests, prompt and output tokens of the day, and concurrent requests."""
        counted = self.book.counted("t", scope)
        return (*counted.daily, counted.concurrent)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def most(model: str = "m", output: int = 50, nano_usd: int = 0, **fields: Any) -> Most:
    return Most(model, Used(100, 0, output), nano_usd, **fields)


async def test_a_request_counts_once_however_many_models_are_tried(bench: Bench) -> None:
    tab = bench.open()
    first = await tab.reserve(most("big"))
    assert bench.counts("t") == (1, 100, 50, 1)
    assert bench.counts("k:k1") == (1, 100, 50, 1)
    assert bench.counts("m:big") == (1, 100, 50, 1)
    first.give_back()
    assert bench.counts("t") == (1, 0, 0, 1)
    assert bench.counts("m:big") == (0, 0, 0, 0)
    second = await tab.reserve(most("small"))
    tab.close([(second, Used(100, 20, 7), 0)], counts=True)
    assert bench.counts("t") == (1, 100, 7, 0)
    assert bench.counts("k:k1") == (1, 100, 7, 0)
    assert bench.counts("m:big") == (0, 0, 0, 0)
    assert bench.book.open_holds() == 0


async def test_both_attempts_of_a_cascade_are_paid(bench: Bench) -> None:
    tab = bench.open()
    student, teacher = await tab.reserve(most("s")), await tab.reserve(most("big"))
    tab.close([(student, Used(100, 0, 5), 0), (teacher, Used(100, 0, 9), 0)], counts=True)
    assert bench.counts("t") == (1, 200, 14, 0)
    assert bench.counts("m:big") == (1, 100, 9, 0)


async def test_the_platforms_loss_costs_nothing_not_even_a_request(bench: Bench) -> None:
    tab = bench.open()
    await tab.reserve(most())
    tab.close([], counts=False)
    assert bench.counts("t") == (0, 0, 0, 0)
    tab.close([], counts=True)  # it is closed
    assert bench.counts("t") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("model", "output", "before", "told", "retry_s"),
    [
        ("m", 50, 5, "requests_per_minute of this key (5)", 48),
        ("big", 90, 2, "output_tokens_per_minute of the model 'big' (200)", 48),
        ("m", 249, 2, "output_tokens_per_day (500)", 48_588),
    ],
)
async def test_a_refusal_names_the_bound_and_when_to_come_again(
    bench: Bench, model: str, output: int, before: int, told: str, retry_s: int
) -> None:
    for _ in range(before):
        tab = bench.open()
        charge = await tab.reserve(most(model, output))
        tab.close([(charge, Used(1, 0, output), 0)], counts=True)
    tab = bench.open()
    with pytest.raises(RateLimitError) as refused:
        await tab.reserve(most(model, output))
    assert told in refused.value.message
    assert refused.value.code == "rate_limit_exceeded"
    assert error_headers(refused.value)["retry-after"] == str(retry_s)
    tab.close([], counts=True)
    assert bench.counts("t")[0] == before


async def test_a_request_that_never_fits_is_not_tried_again(bench: Bench) -> None:
    with pytest.raises(RateLimitError, match="may need 501, and the quota output_tok") as refused:
        await bench.open().reserve(most(output=501))
    assert error_headers(refused.value) == {"x-should-retry": "false"}
    assert bench.open().most_output_tokens("m") == 500
    assert bench.open().most_output_tokens("big") == 200
    assert bench.open(replace(TENANT, quotas=NO_QUOTAS)).most_output_tokens("m") is None


async def test_places_are_free_again_when_requests_have_ended(bench: Bench) -> None:
    tabs = [bench.open() for _ in range(3)]
    for tab in tabs:
        await tab.reserve(most())
    with pytest.raises(RateLimitError, match="concurrent_requests") as refused:
        await bench.open().reserve(most())
    assert refused.value.retry_after_s == 1
    tabs[0].close([], counts=True)
    await bench.open().reserve(most())


async def test_a_minute_begins_anew(bench: Bench) -> None:
    for _ in range(5):
        tab = bench.open()
        tab.close([(await tab.reserve(most(output=1)), Used(1, 0, 1), 0)], counts=True)
    late = bench.open(key=None)
    charge = await late.reserve(most(output=50))
    bench.now_ms += 60_000
    late.close([(charge, Used(100, 0, 50), 0)], counts=True)
    assert bench.book.counted("t", "t").minutely == (0, 0, 0)
    assert bench.counts("t") == (6, 105, 55, 0)
    await bench.open().reserve(most())


async def test_a_budget_warns_spills_and_refuses(bench: Bench) -> None:
    rich = Tenant("t", budget=BUDGET)

    async def pay(most_nano: int, used_nano: int, may_spill: bool = False) -> dict[bytes, bytes]:
        tab = bench.open(rich, None)
        charge = await tab.reserve(most(nano_usd=most_nano, may_spill=may_spill))
        headers = dict(tab.headers("openai"))
        tab.close([(charge, Used(1, 0, 1), used_nano)], counts=True)
        return headers

    assert WARNING not in await pay(499, 400)
    told = (await pay(150, 100))[WARNING]
    assert told == b"step=50%; spent_usd=0.00; budget_usd=0.000001"
    assert not bench.open(rich, None).spills
    with pytest.raises(BudgetSpillError):
        await pay(301, 0, may_spill=True)
    await pay(301, 300)  # nobody else can answer
    assert bench.open(rich, None).spills
    with pytest.raises(InsufficientQuotaError) as refused:
        await pay(201, 0)
    error = refused.value
    assert error.status == 429
    assert error.type == error.code == "insufficient_quota"
    assert "0.0000008 USD are spent" in error.message
    assert error_headers(error) == {"x-should-retry": "false"}
    await pay(200, 200)
    assert bench.book.spent_nano_usd("t") == 1000
    bench.now_ms += 5 * 86_400_000  # December
    assert not bench.open(rich, None).spills
    await pay(301, 300, may_spill=True)
    assert bench.book.spent_nano_usd("t") == 300


async def test_a_change_of_quotas_is_in_force_with_the_next_request(bench: Bench) -> None:
    await bench.open().reserve(most())
    tighter = replace(TENANT, quotas=Quotas(output_tokens_per_day=60))
    with pytest.raises(RateLimitError):
        await bench.open(tighter).reserve(most())


async def test_headers_tell_what_is_left_of_the_scarcest(bench: Bench) -> None:
    tab = bench.open()
    assert tab.headers("openai") == []
    await tab.reserve(most("big", 150))
    told = {name.decode(): value.decode() for name, value in tab.headers("openai")}
    assert told == {
        "x-ratelimit-limit-requests": "4",  # of the model, in a day
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "13h29m48s",
        "x-ratelimit-limit-tokens": "200",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "48s",
    }
    anthropic = {n.decode(): v.decode() for n, v in tab.headers("anthropic")}
    assert told.items() <= anthropic.items()
    assert {name: value for name, value in anthropic.items() if name not in told} == {
        "anthropic-ratelimit-requests-limit": "4",
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2026-11-28T00:00:00Z",
        "anthropic-ratelimit-tokens-limit": "200",
        "anthropic-ratelimit-tokens-remaining": "50",
        "anthropic-ratelimit-tokens-reset": "2026-11-27T10:31:00Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-27T10:31:00Z",
        "anthropic-ratelimit-output-tokens-limit": "200",
        "anthropic-ratelimit-output-tokens-remaining": "50",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-27T10:31:00Z",
    }


async def test_who_is_bounded_by_nothing_has_no_account(bench: Bench) -> None:
    assert bench.account.open(Tenant("free"), None) is None
    assert bench.account.open(Tenant("free", quotas=Quotas()), Key("k", "free", "")) is None
    assert bench.account.open(Tenant("free"), KEY) is not None


@pytest.mark.parametrize("counts", [True, False])
async def test_what_counts_later_frees_its_places_at_once(bench: Bench, counts: bool) -> None:
    later = Later()
    tab = bench.account.open(TENANT, KEY, later)
    assert tab is not None
    first = await tab.reserve(most("big"))
    assert bench.counts("t") == (1, 100, 50, 1)
    assert bench.counts("m:big") == (1, 100, 50, 1)
    first.give_back()
    assert bench.counts("m:big") == (0, 0, 0, 0)
    assert bench.counts("t") == (1, 0, 0, 1)
    second = await tab.reserve(most("big"))
    tab.close([(second, Used(100, 20, 7), 0)], counts=True)
    assert bench.counts("t") == (1, 100, 50, 0)
    assert bench.counts("m:big") == (1, 100, 50, 0)
    later.settle(counts)
    later.settle(not counts)
    used = (1, 100, 7, 0) if counts else (0, 0, 0, 0)
    assert bench.counts("t") == bench.counts("k:k1") == bench.counts("m:big") == used
    assert bench.book.open_holds() == 0
