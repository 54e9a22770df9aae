"""Anthropic's bodies: what they mean as a chat, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_message_count_tokens_params
from anthropic.types.beta import message_create_params as beta_message_create_params

from deployments.gateway.bodies import ChatBody
from deployments.gateway.bodies.anthropic import CountTokensBody, MessagesBody
from deployments.gateway.dialects.messages import CountTokensDialect, MessagesDialect
from weir.errors import BadRequestError

HELLO = {"role": "user", "content": "hello"}
TOOL = {"name": "f", "description": "does f", "input_schema": {"type": "object"}}
NO_HINTS: dict[str, Any] = {"model": "m", "max_tokens": 9}


def _parse(messages: list[dict[str, Any]] | None = None, **fields: Any) -> ChatBody:
    body = {**NO_HINTS, "messages": messages or [HELLO], **fields}
    return MessagesDialect().parse(json.dumps(body).encode())


def _messages(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return _parse(list(messages), **fields).conversation().messages  # type: ignore[return-value]


def _text(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **fields}


def test_system_as_a_string_or_blocks() -> None:
    assert _messages(HELLO, system="be brief")[0] == {"role": "system", "content": "be brief"}
    cached = _text("be brief", cache_control={"type": "ephemeral"})
    assert _messages(HELLO, system=[cached])[0] == {"role": "system", "content": "be brief"}
    both = _messages(HELLO, system=[_text("a"), _text("b")])[0]["content"]
    assert [part["text"] for part in both] == ["a", "b"]


def test_notes_to_anthropic_are_not_in_the_prompt() -> None:
    """They differ in each request, and nothing behind them would be found in the cache."""
    noted = [_text("x-anthropic-billing-header: cch=4711;"), _text("be brief")]
    assert _messages(HELLO, system=noted)[0]["content"] == "be brief"


def test_turns_of_one_role_are_one() -> None:
    said = _messages(HELLO, {"role": "user", "content": [_text("again")]})
    assert [part["text"] for part in said[0]["content"]] == ["hello", "again"]
    assert len(said) == 1


def test_a_later_system_turn_is_a_developers() -> None:
    later = {"role": "system", "content": "now in French"}
    roles = [m["role"] for m in _messages(HELLO, later, HELLO, system="s")]
    assert roles == ["system", "user", "developer", "user"]
    merged = _messages({"role": "system", "content": "b"}, HELLO, system="a")
    assert [m["role"] for m in merged] == ["system", "user"]


def test_a_tool_loop() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": [1, "é"]}}
    thought = {"type": "thinking", "thinking": "hmm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "abc"}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A"}}
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": [_text("42"), image]},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
        _text("go on"),
    ]
    said = _messages(
        HELLO,
        {"role": "assistant", "content": [thought, hidden, _text("I call"), call]},
        {"role": "user", "content": results},
        tools=[TOOL],
    )
    assistant, first, second, last = said[1:]
    assert (assistant["content"], assistant["reasoning"]) == ("I call", "hmm")
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == call["input"]
    assert first == {"role": "tool", "tool_call_id": "t1", "content": "42"}
    assert second == {"role": "tool", "tool_call_id": "t2", "content": ""}
    assert last["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}},
        _text("go on"),
    ]


def test_a_call_without_text_has_no_content() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    assert "content" not in _messages(HELLO, {"role": "assistant", "content": [call]})[1]


def test_images_make_the_replica_render() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    body = _parse(
        [{"role": "user", "content": [_text("what is it?"), url]}],
        stop_sequences=["x"],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "f"},
    )
    submit = MessagesDialect().submission(body, [], 5, False)
    assert submit.messages is not None
    assert submit.messages["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert submit.messages["messages"][0]["content"][1]["image_url"] == {"url": "https://x/y.png"}
    with pytest.raises(BadRequestError) as caught:
        _parse([{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}])
    assert caught.value.param == "messages[0].content[0].source.type"


def test_documents_and_search_results_are_text() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "body"}
    blocks = [
        {"type": "document", "title": "T", "source": plain, "citations": {"enabled": False}},
        {"type": "search_result", "title": "S", "source": "http://s", "content": [_text("found")]},
        {"type": "document", "source": {"type": "content", "content": "more"}},
    ]
    parts = _messages({"role": "user", "content": blocks})[0]["content"]
    assert [part["text"] for part in parts] == ["T", "body", "S", "found", "more"]


def test_tools_and_their_choice() -> None:
    body = _parse(tools=[{**TOOL, "type": "custom", "cache_control": None, "defer_loading": False}])
    fields = body.chat_fields(False)
    assert fields is not None
    assert fields["tool_choice"] == "auto"
    function = {"name": "f", "description": "does f", "parameters": {"type": "object"}}
    assert fields["tools"] == [{"type": "function", "function": function}]
    for choice, meant in (
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ):
        fields = _parse(tools=[TOOL], tool_choice=choice).chat_fields(False)
        assert fields is not None
        assert fields["tool_choice"] == meant
        assert "parallel_tool_calls" not in fields
    alone = {"type": "any", "disable_parallel_tool_use": True}
    fields = _parse(tools=[TOOL], tool_choice=alone).chat_fields(False)
    assert fields is not None
    assert fields["parallel_tool_calls"] is False
    none = _parse(tools=[TOOL], tool_choice={"type": "none"})
    assert none.chat_fields(False) is None
    assert none.conversation().tools, "they stand in the prompt all the same"
    assert _parse(tool_choice={"type": "auto"}).tool_choice is None


def test_as_many_tools_as_coding_agents_have() -> None:
    many = [{**TOOL, "name": f"f{i}", "description": "x" * 4000} for i in range(60)]
    assert len(_parse(tools=many).tools or ()) == 60


def test_an_answer_that_the_client_begins() -> None:
    talk = _parse([HELLO, {"role": "assistant", "content": "The answer is"}]).conversation()
    assert talk.continue_final_message
    assert not talk.add_generation_prompt
    assert _parse().conversation().add_generation_prompt


def test_thinking_and_effort() -> None:
    off = _parse(thinking={"type": "disabled"}).conversation().arguments
    assert off["enable_thinking"] is False
    on = _parse(thinking={"type": "enabled", "budget_tokens": 2000})
    assert on.conversation().arguments == {"enable_thinking": True}
    assert on.include_reasoning
    assert not _parse(thinking={"type": "adaptive", "display": "omitted"}).include_reasoning
    assert _parse(output_config={"effort": "low"}).reasoning_effort == "low"
    assert not _parse().conversation().arguments, "the model's own habit"


def test_json_after_a_schema() -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        form = _parse(**fields).form_fields()["response_format"]
        assert form["json_schema"]["schema"] == {"type": "object"}


def test_sampling_stops_and_metadata() -> None:
    body = _parse(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_sequences=["END"],
        metadata={"user_id": "u", "customer": None},
        stream=True,
    )
    submit = MessagesDialect().submission(body, [1], 9, False)
    sampling = submit.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    assert sampling.stop == ["END"]
    assert submit.chat == {}, "only such a stream tells what ended it"
    assert MessagesDialect().submission(_parse(), [1], 9, False).chat is None
    assert body.metadata == {"user_id": "u"}
    assert body.stream


def test_hints_change_nothing() -> None:
    hints = {
        "cache_control": {"type": "ephemeral"},
        "service_tier": "auto",
        "container": "c",
        "context_management": {"edits": []},
        "betas": ["x"],
        "inference_geo": "us",
        "mcp_servers": [],
        "tool_choice": None,
    }
    assert _parse(**hints) == _parse()


def _documented(params: Any) -> set[str]:
    return set(params.__required_keys__ | params.__optional_keys__) - {"betas"}


def test_every_field_that_the_client_knows_is_used_ignored_or_refused() -> None:
    body, count = MessagesBody, CountTokensBody
    known = {*body.model_fields, *body.ignored, *body.refused}
    for params in (
        message_create_params.MessageCreateParamsStreaming,
        beta_message_create_params.MessageCreateParamsStreaming,
    ):
        assert _documented(params) <= known
    known = {*count.model_fields, *count.ignored, *count.refused}
    for params in (
        message_count_tokens_params.MessageCountTokensParams,
        beta_message_count_tokens_params.MessageCountTokensParams,
    ):
        assert _documented(params) <= known


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]},
        "messages[0].content[0].type",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "a"}]}
            ]
        },
        "messages[0].content",
    ),
    ({"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, "system"),
    ({"temperature": 3}, "temperature"),
    ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type"),
    ({"thinking": {"type": "maybe"}}, "thinking.type"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    ({"stop": ["x"]}, "stop"),
    ({"compaction": {}}, "compaction"),
    ({"thread": {"type": "create"}}, "thread"),
    ({"frobnicate": 1}, "frobnicate"),
    ({"messages": [{"role": "system", "content": "x-anthropic-billing-header: a"}]}, "messages"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[json.dumps(w[0])[:60] for w in WRONG])
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        MessagesDialect().parse(json.dumps({**NO_HINTS, "messages": [HELLO], **fields}).encode())
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def test_counting_reads_the_prompt_as_answering_does() -> None:
    prompt = {"model": "m", "messages": [HELLO], "system": "s", "tools": [TOOL]}
    counted = CountTokensDialect().parse(json.dumps(prompt).encode())
    answered = MessagesDialect().parse(json.dumps({**prompt, "max_tokens": 5}).encode())
    assert counted.conversation() == answered.conversation()
    assert CountTokensDialect().choices(counted) == 0
