"""OpenAI's Responses with the official client, unmodified, against real engines."""

from __future__ import annotations

import json
import time
from typing import Any, Literal, cast

import openai
import pytest
import yaml
from pydantic import BaseModel
from redis import Redis

pytestmark = pytest.mark.e2e

QUESTION = "What are your opening hours?"
TOOL: Any = {
    "type": "function",
    "name": "cancel_order",
    "parameters": {
        "type": "object",
        "properties": {"order": {"enum": ["first", "second"]}},
        "required": ["order"],
        "additionalProperties": False,
    },
    "strict": True,
}


class State(BaseModel):
    """What the answer is to look like."""

    status: Literal["shipped", "pending"]
    late: bool


def _ask(platform: Any, **fields: Any) -> Any:
    told = {"model": platform.model, "input": QUESTION, "temperature": 0, **fields}
    return platform.client().responses.create(**told)


def test_a_response_says_what_chat_says(platform: Any) -> None:
    whole = _ask(platform, max_output_tokens=64)
    chat = platform.client().chat.completions.create(
        model=platform.model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=64,
    )
    assert whole.output_text == chat.choices[0].message.content
    assert whole.status == "completed"
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    assert whole.usage.output_tokens == chat.usage.completion_tokens


def test_a_stream_has_all_events_and_the_same_text(platform: Any) -> None:
    whole = _ask(platform, max_output_tokens=64)
    # The first stream of a gateway that has just come up may arrive in a few pieces only.
    for _ in range(2):
        with platform.client().responses.stream(
            model=platform.model, input=QUESTION, temperature=0, max_output_tokens=64
        ) as stream:
            events = list(stream)
            final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert sum(e.type == "response.output_text.delta" for e in events) > 3, "came in one piece"
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


def test_an_answer_cut_short_is_incomplete(platform: Any) -> None:
    cut = _ask(platform, max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_a_tool_is_called_and_its_output_answered(platform: Any) -> None:
    named = {"type": "function", "name": "cancel_order"}
    fields = {"tools": [TOOL], "tool_choice": named, "max_output_tokens": 64}
    events = list(_ask(platform, **fields, stream=True))
    called = events[-1].response
    call = next(item for item in called.output if item.type == "function_call")
    assert json.loads(call.arguments)["order"] in ("first", "second")
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    by_id = _ask(
        platform,
        input=[output],
        previous_response_id=called.id,
        tools=[TOOL],
        tool_choice="none",
        max_output_tokens=24,
    )
    by_items = _ask(
        platform,
        input=[
            {"role": "user", "content": QUESTION},
            *[item.model_dump(exclude_none=True) for item in called.output],
            output,
        ],
        tools=[TOOL],
        tool_choice="none",
        max_output_tokens=24,
    )
    assert by_id.output_text == by_items.output_text
    assert by_id.usage.input_tokens == by_items.usage.input_tokens


def test_a_schema_is_obeyed_and_parsed(platform: Any) -> None:
    parsed = platform.client().responses.parse(
        model=platform.model,
        input=QUESTION,
        temperature=0,
        max_output_tokens=64,
        text_format=State,
    )
    assert isinstance(parsed.output_parsed, State)


def test_a_conversation_goes_on_by_id(platform: Any) -> None:
    first = _ask(platform, max_output_tokens=32)
    second = _ask(
        platform, input="And on Sunday?", previous_response_id=first.id, max_output_tokens=32
    )
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And on Sunday?"},
    ]
    chat = platform.client().chat.completions.create(
        model=platform.model, messages=messages, temperature=0, max_tokens=32
    )
    assert second.output_text == chat.choices[0].message.content
    assert second.usage.input_tokens == chat.usage.prompt_tokens
    items = platform.client().responses.input_items.list(second.id, order="asc")
    assert [item.role for item in items] == ["user", "assistant", "user"]


def test_kept_read_and_deleted(platform: Any) -> None:
    client = platform.client()
    made = _ask(platform, max_output_tokens=4, metadata={"a": "b"})
    found = client.responses.retrieve(made.id)
    assert found.output == made.output
    assert found.metadata == {"a": "b"}
    port = yaml.safe_load((platform.home / "e2e.yaml").read_text())["redis"]["port"]
    with Redis(port=port) as redis:
        kept = cast("dict[bytes, bytes]", redis.hgetall("{weir:responses}:blobs"))
    assert any(made.id.encode() in name for name in kept), "in Redis, for all gateways"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as error:
        _ask(platform, previous_response_id=made.id)
    assert error.value.code == "previous_response_not_found"
    forgotten = _ask(platform, max_output_tokens=4, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(forgotten.id)


def test_in_the_background(platform: Any) -> None:
    client = platform.client()
    begun = _ask(platform, max_output_tokens=32, background=True)
    assert begun.status == "in_progress"
    found = begun
    deadline_s = time.monotonic() + 60
    while found.status == "in_progress" and time.monotonic() < deadline_s:
        time.sleep(0.1)
        found = client.responses.retrieve(begun.id)
    assert found.status in ("completed", "incomplete")
    assert found.output_text == _ask(platform, max_output_tokens=32).output_text


def test_one_in_the_background_is_cancelled(platform: Any) -> None:
    client = platform.client()
    more = {"ignore_eos": True}
    begun = _ask(platform, background=True, max_output_tokens=1900, extra_body=more)
    deadline_s = time.monotonic() + 30
    while not platform.engine_running() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert platform.engine_running()
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert client.responses.retrieve(begun.id).status == "cancelled"
    deadline_s = time.monotonic() + 30
    while platform.engine_running() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert platform.engine_running() == 0


def test_what_is_not_supported_is_refused_by_name(platform: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="web_search") as error:
        _ask(platform, tools=[{"type": "web_search"}])
    assert error.value.param == "tools[0].type"
