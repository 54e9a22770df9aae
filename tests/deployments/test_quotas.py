"""Quotas and budgets as a client sees them, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.cluster import until
from deployments.testing.world import KEY, World, http_world
from weir.settings import Settings
from weir.tenancy import hash_key

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}], "max_tokens": 10}
PROMPT_TOKENS = 6
Make = Callable[..., Any]


@pytest.fixture
async def make(encoder: PromptEncoder) -> AsyncIterator[Make]:
    """A gateway whose only tenant is bounded like that, and a replica."""
    async with AsyncExitStack() as stack:

        async def made(**tenant: Any) -> World:
            settings = Settings.model_validate(
                {
                    "models": [
                        {
                            "name": "m",
                            "source": "x",
                            "price": {
                                "input_usd_per_million_tokens": 1,
                                "output_usd_per_million_tokens": 10,
                            },
                        }
                    ],
                    "tenants": [{"id": "t", "key_sha256": [hash_key(KEY)], **tenant}],
                }
            )
            world = await stack.enter_async_context(http_world(settings, {"m": encoder}))
            await world.add_replica("a")
            return world

        yield made


async def answered(world: World, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    """The response, of two tokens."""
    pending = asyncio.ensure_future(world.post(dict(body), path))
    generator: Any = world.replicas[0].generator
    await until(lambda: "r1" in generator.started)
    generator.end("r1", "yes", count=2)
    response = await pending
    assert response.status == 200, await response.text()
    await response.read()
    await until(lambda: book(world).open_holds() == 0)
    return response


def book(world: World) -> Any:
    store: Any = world.gateway.parts.account.store
    return store.book


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_what_is_left(make: Make, stream: bool) -> None:
    world = await make(quotas={"requests_per_day": 5, "output_tokens_per_day": 100})
    for left in (4, 3):
        response = await answered(world, {**CHAT, "stream": stream})
        headers = response.headers
        assert headers["x-ratelimit-limit-requests"] == "5"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert headers["x-ratelimit-limit-tokens"] == "100"
        assert headers["x-ratelimit-remaining-tokens"] == str(90 - 2 * (4 - left))
        assert headers["x-ratelimit-reset-requests"][-1] == "s"
        assert not any(name.startswith("anthropic") for name in headers)
    assert book(world).counted("t", "t").daily == (2, 2 * PROMPT_TOKENS, 4)


async def test_a_refusal_has_openais_shape_and_says_when_to_come_again(make: Make) -> None:
    world = await make(quotas={"requests_per_day": 1})
    await answered(world, CHAT)
    refused = await world.post(dict(CHAT))
    error = (await refused.json())["error"]
    assert refused.status == 429
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "requests_per_day" in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    told = world.gateway.metrics.requests.labels("t", "m", "chat", "429", "rate_limit_exceeded")
    assert told._value.get() == 1


async def test_a_spent_budget_is_openais_insufficient_quota(make: Make) -> None:
    world = await make(budget={"usd_per_month": 0.00013})
    first = await answered(world, CHAT)  # 106 µUSD at most, 26 in the end
    assert first.headers["x-weir-budget-warning"].startswith("step=80%; ")
    refused = await world.post(dict(CHAT))
    error = (await refused.json())["error"]
    assert (refused.status, error["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert "x-weir-budget-warning" not in (await answered(world, {**CHAT, "max_tokens": 2})).headers
    assert book(world).spent_nano_usd("t") == 2 * 26_000


async def test_anthropics_clients_are_told_in_their_words(make: Make) -> None:
    world = await make(quotas={"requests_per_day": 1, "prompt_tokens_per_minute": 1000})
    response = await answered(world, CHAT, "/v1/messages")
    assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert response.headers["anthropic-ratelimit-input-tokens-limit"] == "1000"
    assert response.headers["anthropic-ratelimit-requests-reset"].endswith("T00:00:00Z")
    refused = await world.post(dict(CHAT), "/v1/messages")
    assert refused.status == 429
    assert (await refused.json())["error"]["type"] == "rate_limit_error"
    assert "retry-after" in refused.headers


async def test_an_answer_without_a_limit_ends_where_the_quota_does(make: Make) -> None:
    world = await make(quotas={"output_tokens_per_day": 40})
    asked = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    await answered(world, {**asked, "n": 1})
    generator: Any = world.replicas[0].generator
    assert generator.requests["r1"].sampling.max_tokens == 40


async def test_a_bad_request_costs_nothing(make: Make) -> None:
    world = await make(quotas={"requests_per_day": 1})
    for _ in range(3):
        assert (await world.post({**CHAT, "temperature": "hot"})).status == 400
    await answered(world, CHAT)


async def test_what_is_refused_by_the_platform_costs_nothing(make: Make) -> None:
    world = await make(quotas={"requests_per_day": 1, "concurrent_requests": 1})
    generator: Any = world.replicas[0].generator
    generator.refuse = RuntimeError("broken")
    for _ in range(2):
        assert (await world.post(dict(CHAT))).status >= 500
    assert book(world).counted("t", "t").daily == (0, 0, 0)
    assert book(world).open_holds() == 0
    generator.refuse = None
    await answered(world, CHAT)
    assert (await world.post(dict(CHAT))).status == 429


async def test_a_client_that_leaves_pays_for_what_was_made(make: Make) -> None:
    world = await make(quotas={"requests_per_day": 5, "concurrent_requests": 1})
    pending = asyncio.ensure_future(world.post({**CHAT, "stream": True}))
    generator: Any = world.replicas[0].generator
    await until(lambda: "r1" in generator.started)
    generator.say("r1", "so ", tokens=3)
    response = await pending
    response.close()
    await until(lambda: book(world).open_holds() == 0)
    counted = book(world).counted("t", "t")
    assert (counted.daily, counted.concurrent) == ((1, PROMPT_TOKENS, 3), 0)
