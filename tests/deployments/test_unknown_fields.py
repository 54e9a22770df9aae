"""Fields that nobody knows: ignored and named, or refused and named."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.bodies.unknown import MAX_NAMES, Unknown
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.world import KEY, http_world
from weir.errors import BadRequestError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.tree import ServerSettings
from weir.tenancy import hash_key

TEXT = {"type": "text", "text": "x"}
PART = {"type": "input_text", "text": "x"}
USER = {"role": "user", "content": "hello"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER]},
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": [USER], "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": [USER]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/tokenize": {"prompt": "hello"},
    "/detokenize": {"tokens": [1]},
}


def _parse(path: str, fields: dict[str, Any], unknown: Unknown | None) -> Any:
    dialect = DIALECTS.find(path)
    assert dialect is not None
    return dialect.parse(json.dumps({"model": "m", **BODIES[path], **fields}).encode(), unknown)


def _named(unknown: Unknown) -> list[str]:
    ((_, value),) = unknown.headers()
    return value.decode("ascii").split(", ")


@pytest.mark.parametrize("path", [dialect.path for dialect in DIALECTS])
def test_every_kind_of_request_names_them(path: str) -> None:
    unknown = Unknown()
    _parse(path, {"temprature": 1, "chat_id": None}, unknown)
    assert _named(unknown) == ["temprature", "chat_id"]
    for refusing in (None, Unknown(refused=True)):
        with pytest.raises(BadRequestError) as refused:
            _parse(path, {"temprature": 1, "other": 2}, refusing)
        assert refused.value.param == "temprature"
        assert "(and other)" in refused.value.message


@pytest.mark.parametrize(
    ("path", "fields", "names"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": [USER | {"a": 1}, USER | {"a": 1}],
                "stream": True,
                "stream_options": {"b": 1},
                "tools": [{"type": "function", "c": 1, "function": {"name": "f", "d": 1}}],
                "tool_choice": {"type": "function", "e": 1, "function": {"name": "f", "g": 1}},
                "response_format": {"type": "json_object", "h": 1},
            },
            "messages[].a stream_options.b tools[].c tools[].function.d tool_choice.e "
            "tool_choice.function.g response_format.h",
        ),
        (
            "/v1/messages",
            {
                "messages": [{"role": "user", "a": 1, "content": [{**TEXT, "b": 2}]}],
                "tools": [{"name": "f", "input_schema": {}, "c": 1}],
                "tool_choice": {"type": "auto", "d": 1},
                "thinking": {"type": "disabled", "e": 1},
            },
            "messages[].content[].b messages[].a tools[].c tool_choice.d thinking.e",
        ),
        (
            "/v1/responses",
            {
                "input": [{"role": "user", "a": 1, "content": [{**PART, "b": 2}]}],
                "tools": [{"type": "function", "name": "f", "c": 1}],
                "text": {"d": 1, "format": {"type": "text", "e": 1}},
                "reasoning": {"f": 1},
            },
            "input[].content[].b input[].a tools[].c text.format.e text.d reasoning.f",
        ),
    ],
)
def test_those_further_down_are_named(path: str, fields: dict[str, Any], names: str) -> None:
    unknown = Unknown()
    _parse(path, fields, unknown)
    assert sorted(_named(unknown)) == sorted(names.split())


def test_hints_and_known_fields_are_not_named() -> None:
    unknown = Unknown()
    answer = {"role": "assistant", "content": "hi", "annotations": [], "refusal": None}
    _parse("/v1/chat/completions", {"messages": [USER, answer], "service_tier": "auto"}, unknown)
    assert unknown.headers() == []


@given(st.lists(st.text(max_size=200), max_size=40))
def test_any_names_make_a_header_that_is_short_and_clean(names: list[str]) -> None:
    unknown = Unknown()
    for name in names:
        unknown.add("messages[]", name)
    pairs = unknown.headers()
    assert bool(pairs) == bool(names)
    for _, value in pairs:
        assert len(value) < 100 * MAX_NAMES
        assert value.decode("ascii").isprintable()


@given(st.text(min_size=1, max_size=9).filter(lambda name: name not in ("model", "prompt")))
def test_any_field_is_read_ignored_or_refused_by_its_name(name: str) -> None:
    try:
        _parse("/v1/completions", {name: [{"x": 1}]}, Unknown())
    except BadRequestError as refused:
        param = refused.param or ""
    else:
        param = name
    assert param.startswith(name)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_the_header_of_answers_and_streams(world: Any, path: str, stream: bool) -> None:
    replica = await world.add_replica("a")
    body = {"model": "m", **BODIES[path], "stream": stream, "chat_id": "x", "bad\r\nname": 1}
    pending = asyncio.ensure_future(world.post(body, path).__aenter__())
    async with asyncio.timeout(10):
        while not replica.generator.started:  # noqa: ASYNC110 - the generator has no event
            await asyncio.sleep(0.005)
    replica.generator.end(next(iter(replica.generator.started)), "hi")
    response = await pending
    assert response.status == 200
    assert response.headers["x-weir-ignored"] == "chat_id, bad??name"
    await response.read()


async def test_a_refusal_for_another_reason_names_them_too(world: Any) -> None:
    await world.add_replica("a")
    async with world.post({"messages": [USER], "chat_id": "x", "max_tokens": 4000}) as response:
        assert response.status == 400
        assert response.headers["x-weir-ignored"] == "chat_id"


async def test_settings_may_refuse_them(encoder: PromptEncoder) -> None:
    settings = Settings(
        server=ServerSettings(unknown_fields="refuse"),
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, {"m": encoder}) as world:
        for path, body in BODIES.items():
            async with world.post({**body, "chat_id": "x"}, path) as response:
                assert response.status == 400, path
                assert "chat_id" in (await response.json())["error"]["message"]
