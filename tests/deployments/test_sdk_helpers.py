"""The official client's own helpers, unmodified, against a gateway over sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from deployments.stub_generator import STRUCTURED_TOKENS, StubGenerator
from deployments.testing.world import KEY, World

MESSAGES: Any = [{"role": "user", "content": "hello"}]


class Answer(BaseModel):
    """The form of the stub's scripted JSON."""

    words: str


class Call(BaseModel):
    """The form of the arguments of its scripted call."""

    words: str


@pytest.fixture
async def client(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    await world.add_replica("a", StubGenerator(0.0))
    url = f"{world.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


async def test_a_chat_stream_with_every_option(client: openai.AsyncOpenAI) -> None:
    options: Any = {"include_usage": True}
    async with client.chat.completions.stream(
        model="m",
        messages=MESSAGES,
        # An answer cut off by its length is an error of the client's own.
        response_format=Answer,
        max_completion_tokens=20,
        logprobs=True,
        top_logprobs=2,
        stream_options=options,
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= set(kinds)
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].logprobs is not None
    assert len(final.choices[0].logprobs.content or ()) == STRUCTURED_TOKENS
    assert final.usage is not None
    assert final.usage.completion_tokens == STRUCTURED_TOKENS


async def test_parsed_answers_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.parse(
        model="m", messages=MESSAGES, response_format=Answer
    )
    assert whole.choices[0].message.parsed is not None
    async with client.chat.completions.stream(
        model="m", messages=MESSAGES, response_format=Answer
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed


async def test_parsed_calls_and_the_second_turn(client: openai.AsyncOpenAI) -> None:
    tools: Any = [openai.pydantic_function_tool(Call, name="f")]
    async with client.chat.completions.stream(
        model="m", messages=MESSAGES, tools=tools, tool_choice="required"
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Call)
    result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    for turn in (message, message.model_dump(), json.loads(message.model_dump_json())):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[*MESSAGES, turn, result], tools=tools, max_tokens=3
        )
        assert "x-weir-ignored" not in raw.headers
        assert raw.parse().choices[0].message.content


async def test_a_response_stream_and_parsed_responses(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(
        model="m", input="hello", text_format=Answer, store=False
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_parsed is not None
    whole = await client.responses.parse(model="m", input="hello", text_format=Answer, store=False)
    assert whole.output_parsed == final.output_parsed
    again: Any = [{"role": "user", "content": "hello"}, *whole.output]
    raw = await client.responses.with_raw_response.create(
        model="m", input=again, store=False, max_output_tokens=3
    )
    assert "x-weir-ignored" not in raw.headers


async def test_usage_in_every_chunk_is_null_or_counts(client: openai.AsyncOpenAI) -> None:
    for more, told in (({}, [None]), ({"continuous_usage_stats": True}, [0, 1, 2, 3, 3])):
        options: Any = {"include_usage": True, **more}
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=3, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        assert all("usage" in chunk.model_fields_set for chunk in chunks)
        counts = [c.usage and c.usage.completion_tokens for c in chunks[:-1]]
        assert set(counts) <= set(told)
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3


async def test_more_prompts_and_choices_than_before_within_the_limit(
    client: openai.AsyncOpenAI,
) -> None:
    made = await client.completions.create(model="m", prompt=["hello"] * 100, max_tokens=1)
    assert len(made.choices) == 100
    chat = await client.chat.completions.create(model="m", messages=MESSAGES, n=40, max_tokens=1)
    assert [choice.index for choice in chat.choices] == list(range(40))
    for prompts, n, param, words in (
        (129, 1, "prompt", "129 prompts"),
        (1, 129, "n", "129 choices"),
        (13, 10, "n", "13 prompts times 10 choices"),
    ):
        with pytest.raises(openai.BadRequestError, match=words) as refused:
            await client.completions.create(model="m", prompt=["hello"] * prompts, n=n)
        assert refused.value.param == param


async def test_completions_have_sixteen_tokens_by_default(client: openai.AsyncOpenAI) -> None:
    null = {"extra_body": {"max_tokens": None}}
    for fields in ({}, {"logprobs": 0}, {"echo": True}, {"n": 2}, null):
        given: Any = fields
        made = await client.completions.create(model="m", prompt="hello", **given)
        assert made.usage is not None
        assert made.usage.completion_tokens == 16 * len(made.choices)
    scored = await client.completions.create(
        model="m", prompt="hello world", max_tokens=0, echo=True, logprobs=1
    )
    assert scored.choices[0].text == "hello world"
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0


async def test_prompts_are_cut_to_length(client: openai.AsyncOpenAI) -> None:
    async def shown(**fields: Any) -> list[int]:
        made = await client.completions.create(
            model="m",
            prompt="user system assistant hello world",
            max_tokens=4,
            extra_body={"return_token_ids": True, **fields},
        )
        ids: list[int] = made.choices[0].prompt_token_ids  # type: ignore[attr-defined]
        return ids

    assert await shown() == [1, 2, 3, 5, 6]
    assert await shown(truncate_prompt_tokens=2) == [1, 2]
    assert await shown(truncate_prompt_tokens=2, truncation_side="left") == [5, 6]
    assert await shown(truncate_prompt_tokens=-1) == [1, 2, 3, 5, 6]
    for value in (0, 61, -2):
        with pytest.raises(openai.BadRequestError) as refused:
            await shown(truncate_prompt_tokens=value)
        assert refused.value.param == "truncate_prompt_tokens"
    long: Any = [{"role": "user", "content": "hello " * 100}]
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=long, max_tokens=4)
    made = await client.chat.completions.create(
        model="m", messages=long, max_tokens=4, extra_body={"truncate_prompt_tokens": -1}
    )
    assert made.usage is not None
    assert made.usage.prompt_tokens == 60


async def test_tokens_by_their_ids(client: openai.AsyncOpenAI) -> None:
    ids = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    chat = await client.chat.completions.create(
        model="m", messages=MESSAGES, max_tokens=2, logprobs=True, extra_body=ids
    )
    choice: Any = chat.choices[0]
    told = [token.token for token in choice.logprobs.content]
    assert told == [f"token_id:{token}" for token in choice.token_ids]
    text = await client.completions.create(
        model="m", prompt="hello", max_tokens=2, logprobs=1, extra_body=ids
    )
    made: Any = text.choices[0]
    assert made.logprobs.tokens == [f"token_id:{token}" for token in made.token_ids]


async def test_prompt_token_ids_are_in_the_first_chunk_only(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        max_tokens=3,
        stream=True,
        extra_body={"return_token_ids": True},
    )
    shown = [(chunk.model_extra or {}).get("prompt_token_ids") async for chunk in stream]
    assert shown[0] == [1, 4, 5, 3, 4]
    assert set(map(type, shown[1:])) == {type(None)}
