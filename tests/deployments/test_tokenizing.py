"""``/tokenize`` and ``/detokenize``: the ids that a request would have, and their text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.gateway.bodies.requests import ChatBody, ChatMessage
from deployments.gateway.prompts import PromptEncoder
from deployments.testing import World
from deployments.testing.cluster import until
from deployments.testing.world import http_world
from features.enrichment import Enrichment
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key

MESSAGES = [{"role": "user", "content": "hello world"}]


async def post(world: World, path: str, **body: Any) -> tuple[int, Any]:
    async with world.post(body, path) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": MESSAGES},
        {"messages": MESSAGES, "add_generation_prompt": False},
        {
            "messages": [*MESSAGES, {"role": "assistant", "content": "hello"}],
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
        {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": MESSAGES, "chat_template_kwargs": {"x": 1}, "max_tokens": 5, "n": 2},
        {"prompt": "hello hello world"},
        {"prompt": "hello hello world", "add_special_tokens": False},
    ],
)
async def test_the_ids_are_those_of_the_request_itself(
    world: World, fields: dict[str, Any]
) -> None:
    replica = await world.add_replica("a")
    status, told = await post(world, "/tokenize", return_token_strs=True, **fields)
    assert status == 200, told
    path = "/v1/chat/completions" if "messages" in fields else "/v1/completions"
    asking = asyncio.ensure_future(post(world, path, **{**fields, "n": 1}))
    await until(lambda: "r1" in replica.generator.requests)
    prompt = replica.generator.requests["r1"].prompt
    replica.generator.end("r1", "hello")
    await asking
    assert told["tokens"] == prompt
    assert told["count"] == len(prompt)
    assert told["max_model_len"] == 64
    assert len(told["token_strs"]) == len(prompt)
    _, text = await post(world, "/detokenize", tokens=prompt)
    assert text["prompt"].split() == told["token_strs"]


async def test_counting_for_anthropic_is_the_same(world: World) -> None:
    await world.add_replica("a")
    _, told = await post(world, "/tokenize", messages=MESSAGES)
    _, counted = await post(world, "/v1/messages/count_tokens", messages=MESSAGES)
    assert counted == {"input_tokens": told["count"]}
    assert told["token_strs"] is None


async def test_more_than_the_context_is_counted_too(world: World) -> None:
    await world.add_replica("a")
    status, told = await post(world, "/v1/tokenize", prompt="hello " * 1500)
    assert (status, told["count"], told["max_model_len"]) == (200, 1500, 64)


async def test_it_is_no_stream_and_a_model_that_embeds_tokenizes_as_well(world: World) -> None:
    await world.add_replica("a", tasks=frozenset({"embed"}))
    status, told = await post(world, "/tokenize", prompt="hello", stream=True)
    assert (status, told["tokens"]) == (200, [5])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": ["a", "b"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "return_token_strs": "x"}, "return_token_strs"),
        ("/tokenize", {"messages": []}, "messages"),
        (
            "/tokenize",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:,"}}],
                    }
                ]
            },
            "messages",
        ),
        ("/detokenize", {"tokens": [1, 99]}, "tokens[1]"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(
    world: World, path: str, body: dict[str, Any], param: str
) -> None:
    await world.add_replica("a")
    status, told = await post(world, path, **body)
    assert (status, told["error"]["param"]) == (400, param), told


async def test_a_key_that_may_use_the_model_is_needed(world: World) -> None:
    await world.add_replica("a")
    async with world.post({"prompt": "hello"}, "/tokenize", authorization="Bearer no") as response:
        assert response.status == 401
    status, _ = await post(world, "/tokenize", model="other", prompt="hello")
    assert status == 404


class _Names:
    """Adds a word to every prompt, as features are added."""

    def begin(self, tenant: Any, body: Any, header: Any) -> Any:
        self._body = body
        return self

    async def finish(self) -> Enrichment[Any]:
        body = self._body
        if isinstance(body, ChatBody):
            more = [ChatMessage(role="system", content="world"), *body.messages]
            return Enrichment(body.model_copy(update={"messages": more}))
        return Enrichment(body.model_copy(update={"prompt": "world " + body.prompt}))


async def test_features_are_in_and_nothing_is_billed(encoder: PromptEncoder) -> None:
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key("weir_test-key"),)),),
    )
    async with http_world(settings, {"m": encoder}, _Names()) as world:
        await world.add_replica("a")
        _, told = await post(world, "/tokenize", prompt="hello")
        assert told["tokens"] == [6, 5]
        _, told = await post(world, "/tokenize", messages=MESSAGES, return_token_strs=True)
        assert told["token_strs"][:3] == ["system", ":", "world"]
        metrics = world.gateway.metrics
        assert metrics.prompt_tokens.labels("t", "m")._value.get() == 0
        labels = ("t", "m", "tokenize", "200", "")
        assert metrics.requests.labels(*labels)._value.get() == 2
