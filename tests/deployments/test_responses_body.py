"""Responses bodies mean what the same chat body means, and what is not supported has a name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import ResponseItemList
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from deployments.gateway.bodies.from_responses import (
    ResponsesChat,
    kept_items,
    messages_of,
    read_items,
)
from deployments.gateway.bodies.responses import ResponsesBody
from deployments.gateway.dialects.responses import ResponsesDialect
from weir.errors import BadRequestError

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
OTHER = {"type": "function", "name": "g"}
NAMED_X = {"type": "function", "name": "x"}
FILE = {"role": "user", "content": [{"type": "input_file"}]}


def parse(**fields: Any) -> ResponsesChat:
    body = {"model": "m", "input": "hi", **fields}
    return ResponsesDialect().parse(json.dumps(body).encode())


def messages(**fields: Any) -> list[dict[str, Any]]:
    return [m.model_dump(exclude_none=True) for m in parse(**fields).messages]


def test_text_and_instructions() -> None:
    assert messages(instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_a_turn_of_the_model_is_one_message() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [_part("reasoning", "hm")]},
        {"type": "message", "role": "assistant", "content": [_part("output", "so")], "id": "x"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "y"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {"type": "reasoning", "summary": [_part("summary", "brief")], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c3", "name": "f", "arguments": "{}"},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
    ]
    told = messages(input=items)
    assert [m["role"] for m in told] == ["user", "assistant", "tool", "assistant"]
    assert told[1]["reasoning"] == "hm"
    assert told[1]["content"] == [{"type": "text", "text": "so"}]
    assert [c["id"] for c in told[1]["tool_calls"]] == ["c1", "c2"]
    assert told[2] == {"role": "tool", "tool_call_id": "c1", "content": "4"}
    assert (told[3]["reasoning"], told[3]["tool_calls"][0]["id"]) == ("brief", "c3")


def _part(kind: str, text: str) -> dict[str, Any]:
    return {"type": f"{kind}_text", "text": text, "annotations": []}


def test_answers_that_follow_one_another_stay_apart() -> None:
    items = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert [m["content"] for m in messages(input=items)] == ["a", "b"]


def test_images_are_left_to_the_replica() -> None:
    part = {"type": "input_image", "image_url": "data:,x", "detail": "low"}
    body = parse(input=[{"role": "user", "content": [part]}])
    assert body.has_other_parts
    sent = body.as_openai()
    assert sent["messages"][0]["content"][0]["image_url"] == {"url": "data:,x", "detail": "low"}
    assert "asked" not in sent
    assert "items" not in sent


def test_the_rest_of_the_body() -> None:
    schema = {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}
    body = parse(
        tools=[TOOL, OTHER],
        tool_choice={"type": "function", "name": "f"},
        text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=3,
        max_output_tokens=9,
        metadata={"intent": "x"},
        truncation="auto",
        service_tier="auto",
        prompt_cache_key="k",
        temperature=0.5,
        top_p=0.5,
        top_k=4,
        ignore_eos=True,
        user="u",
    )
    assert body.max_output_tokens == 9
    assert (body.wants_logprobs, body.reasoning_effort) == (3, "low")
    assert body.metadata == {"intent": "x"}
    assert (body.temperature, body.top_p, body.top_k, body.ignore_eos) == (0.5, 0.5, 4, True)
    fields = body.chat_fields(parses_reasoning=False)
    assert fields is not None
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert fields["tools"][0]["function"]["strict"] is True
    assert "strict" not in fields["tools"][1]["function"]
    assert fields["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_allowed_tools_are_the_only_ones() -> None:
    named = [{"type": "function", "name": "g"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": named}
    body = parse(tools=[TOOL, OTHER], tool_choice=choice)
    fields = body.chat_fields(parses_reasoning=False)
    assert fields is not None
    assert [t["function"]["name"] for t in fields["tools"]] == ["g"]
    assert fields["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "'custom'"),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "'mcp'"),
        ({"tools": [TOOL], "tool_choice": NAMED_X}, "tool_choice.name", "no such"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"conversation": "c"}, "conversation", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "not supported"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "itself"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "not supported"),
        ({"input": [{"role": "user"}]}, "input[0].content", "required"),
        ({"input": [FILE]}, "input[0].content[0].type", "input_file"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [7]}, "input[0]", "object"),
        ({"input": 7}, "input", "string"),
        ({"background": True, "store": False}, "background", "store"),
        ({"background": True, "stream": True}, "stream", "poll"),
        ({"max_tokens": 4}, "max_tokens", "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "needs"),
        ({"include": ["nonsense"]}, "include[0]", "should be"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "not kept"),
        ({"nonsense": 1}, "nonsense", "unrecognized"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says) as error:
        parse(**fields)
    assert error.value.param == param


def test_items_are_kept_and_read_again() -> None:
    body = parse(
        input=[
            {"role": "user", "content": "hi"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "reasoning", "summary": [], "content": [_part("reasoning", "hm")]},
            {"role": "assistant", "content": "so"},
        ]
    )
    kept = kept_items(body.items, "r")
    listed = {"object": "list", "data": kept, "first_id": "", "last_id": "", "has_more": False}
    assert len(ResponseItemList.model_validate(listed).data) == 5
    assert len({item["id"] for item in kept}) == 5
    again = read_items(json.loads(json.dumps(kept)))
    assert [m["role"] for m in messages_of(again)] == ["user", "assistant", "tool", "assistant"]
    assert kept_items(again, "other") == kept, "ids stay"


def test_every_field_of_the_official_client_is_known() -> None:
    known = {*ResponsesBody.model_fields, *ResponsesBody.ignored, *ResponsesBody.refused}
    assert set(ResponseCreateParamsBase.__annotations__) - known == set()
