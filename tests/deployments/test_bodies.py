"""What clients send: taken, ignored or refused by name, and what it asks to generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody, parse_body
from deployments.gateway.prompts import PromptEncoder
from deployments.schemas import MAX_DEPTH, check_chat
from weir.errors import BadRequestError

USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def chat(**fields: Any) -> ChatBody:
    body = {"model": "m", "messages": [USER], **fields}
    return parse_body(ChatBody, json.dumps(body).encode())


def completion(**fields: Any) -> CompletionBody:
    body = {"model": "m", "prompt": "hello", **fields}
    return parse_body(CompletionBody, json.dumps(body).encode())


def embedding(**fields: Any) -> EmbeddingBody:
    body = {"model": "m", "input": "hello", **fields}
    return parse_body(EmbeddingBody, json.dumps(body).encode())


@pytest.mark.parametrize("field", sorted(set(ChatBody.model_fields) - {"model", "messages"}))
def test_null_is_absent_in_chat(field: str) -> None:
    assert chat(**{field: None}) == chat()


@pytest.mark.parametrize("field", sorted(set(CompletionBody.model_fields) - {"model", "prompt"}))
def test_null_is_absent_in_completions(field: str) -> None:
    assert completion(**{field: None}) == completion()


def test_null_is_absent_further_down() -> None:
    options = {"include_usage": None, "include_obfuscation": None}
    assert chat(stream=True, stream_options=options).stream_options is not None
    assert embedding(encoding_format=None, dimensions=None) == embedding()
    named = {**USER, "name": None, "tool_calls": None, "refusal": None}
    assert chat(messages=[named]) == chat()
    bare = {"type": "function", "function": {"name": "f", "description": None, "strict": None}}
    assert chat(tools=[bare]) == chat(tools=[TOOL])


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "auto"},
        {"prompt_cache_key": "x"},
        {"prompt_cache_retention": "24h"},
        {"safety_identifier": "u1"},
        {"verbosity": "low"},
        {"modalities": ["text"]},
        {"prediction": None},
        {"prediction": {"type": "content", "content": "x"}},
        {"web_search_options": None},
        {"functions": None},
        {"function_call": None},
        {"audio": None},
        {"store": True},
        {"metadata": {"a": "b"}},
        {"user": "u"},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"top_logprobs": 0},
        {"suffix": ""},
        {"seed": 8.0},
        {"n": 2.0},
    ],
)
def test_hints_are_accepted(fields: dict[str, Any]) -> None:
    chat(**fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"guided_json": {}}, "guided_json"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"temprature": 1}, "temprature"),
        ({"temprature": None}, "temprature"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": SCHEMA},
            "structured_outputs",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0].ty"),
        (
            {"messages": [{**USER, "function_call": {"name": ""}}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"stop": ["a"] * 17}, "stop"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"n": 2049}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"documents": [{"title": 1}]}, "documents[0].title"),
    ],
)
def test_what_changes_the_answer_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat(**fields)
    assert (refused.value.param or "").startswith(param)
    assert param in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ["Hello", ""]}, "prompt[1]", "at least 1 character"),
        ({"prompt": ["Hi"] * 2049}, "prompt", "at most 2048 items"),
        ({"prompt": [[1], [2, "a"]]}, "prompt[1][1]", "integer"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"n": 2, "best_of": 3}, "best_of", "equal to n"),
        ({"max_tokens": 0}, "max_tokens", "echo"),
        ({"messages": [USER]}, "messages", "unrecognized"),
    ],
)
def test_completions_are_refused_by_name(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        completion(**fields)
    assert refused.value.param == param
    assert words in refused.value.message


def test_a_servers_own_message_can_be_sent_back() -> None:
    call = {
        "id": "",
        "index": 0,
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":1}', "parsed_arguments": {"a": 1}},
    }
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "reasoning": "r",
        "reasoning_content": "r",
        "parsed": None,
        "provider_specific_fields": {},
        "tool_calls": [call],
    }
    result = {"role": "tool", "tool_call_id": "", "content": "1", "name": ""}
    shown = chat(messages=[USER, answer, result]).conversation().messages[1]
    assert shown["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert shown["reasoning"] == "r"
    assert "annotations" not in shown


def test_a_function_call_is_a_tool_call() -> None:
    turn = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    shown = chat(messages=[USER, turn]).conversation().messages[1]
    assert shown["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert "function_call" not in shown


def _deep(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("inner", [_deep(70), {"description": "x" * 70_000}])
@pytest.mark.parametrize(
    ("field", "wrap"),
    [
        ("response_format", lambda s: {"type": "json_schema", "json_schema": {"schema": s}}),
        ("tools", lambda s: [{"type": "function", "function": {"name": "f", "parameters": s}}]),
        ("structured_outputs", lambda s: {"json": s}),
        ("chat_template_kwargs", lambda s: s),
    ],
)
def test_schemas_are_bounded(field: str, wrap: Any, inner: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=r"nested deeper|larger than") as refused:
        chat(**{field: wrap(inner)})
    assert refused.value.param in (field, f"{field}[0].function.parameters")


@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
def test_what_is_nested_too_deep_for_the_parser_is_called_so(word: str) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(130):
        schema = {word: [schema]}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    with pytest.raises(BadRequestError, match="nested more than 200 levels"):
        chat(response_format=form)


def test_a_schema_may_be_as_deep_as_the_replica_allows() -> None:
    def form(depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(depth - 1):
            schema = {"items": schema}
        return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}

    check_chat({"response_format": chat(response_format=form(MAX_DEPTH)).form_fields()})
    with pytest.raises(BadRequestError, match="nested deeper"):
        chat(response_format=form(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "messages",
    [
        [0] * 100_000,
        [{"role": "user", "content": [0] * 100_000}],
        [{"role": "user", "content": [{"type": "text"}] * 20_000}],
        [{"role": "assistant", "tool_calls": [0] * 100_000}],
    ],
)
def test_the_first_of_many_faults_is_told(messages: list[Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatBody.model_validate_json(json.dumps({"model": "m", "messages": messages}))
    assert refused.value.error_count() < 5
    with pytest.raises(BadRequestError, match=r"messages\[0\]"):
        chat(messages=messages)


def test_bodies_of_too_many_values_are_refused_before_they_are_checked() -> None:
    part = {"type": "text", "text": "x"}
    for fields in (
        {"messages": [{"role": "user", "content": [part] * 26_000}]},
        {"messages": [{"role": "user", "content": [0] * 263_000}]},
        {"messages": [[]] * 101_000},
        {"logit_bias": {str(n): 1 for n in range(101_000)}},
    ):
        with pytest.raises(BadRequestError, match="more than 100,000 names"):
            chat(**fields)
    assert chat(messages=[{"role": "user", "content": [part] * 5_000}])
    assert completion(prompt=[7] * 250_000)


@pytest.mark.parametrize("text", ["{,[", '"', "\\", '\\"', '\\\\"{,['])
def test_what_is_in_texts_is_not_counted(text: str) -> None:
    assert chat(messages=[{"role": "user", "content": text * 150_000}])


def test_biases_words_stops_and_tools_are_bounded() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert chat(logit_bias={str(n): 1 for n in range(1_024)}, tools=[tool] * 1_024)
    for fields, told in (
        ({"tools": [tool] * 1_025}, "more than 1,024 tools"),
        ({"logit_bias": {str(n): 1 for n in range(1_025)}}, "at most 1024"),
        ({"bad_words": ["x" * 257]}, "256"),
        ({"stop": "x" * 4_097}, "4096"),
        ({"stop": ["x" * 4_097]}, "4096"),
    ):
        with pytest.raises(BadRequestError, match=told) as refused:
            chat(**fields)
        assert (refused.value.param or "").startswith(next(iter(fields)))


def test_the_four_kinds_of_prompt_as_lists() -> None:
    assert completion(prompt="a").prompts() == ["a"]
    assert completion(prompt=["a", "b"]).prompts() == ["a", "b"]
    assert completion(prompt=[1, 2]).prompts() == [[1, 2]]
    assert completion(prompt=[[1], [2, 3]]).prompts() == [[1], [2, 3]]
    assert embedding(input=["a", "b"]).prompts() == ["a", "b"]


def test_output_limits() -> None:
    assert completion().max_output_tokens == 16
    assert completion(max_tokens=None).max_output_tokens == 16
    assert completion(max_tokens=5).max_output_tokens == 5
    assert chat().max_output_tokens is None
    scoring = completion(max_tokens=0, echo=True, logprobs=1)
    assert scoring.only_scores
    assert scoring.max_output_tokens == 0
    assert not completion().only_scores


def test_logprobs() -> None:
    assert chat().wants_logprobs is None
    assert chat(logprobs=True).wants_logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).wants_logprobs == 3
    assert chat(prompt_logprobs=2).wants_prompt_logprobs == 2
    assert completion().wants_logprobs is None
    assert completion(logprobs=0).wants_logprobs == 0
    assert completion(logprobs=2).wants_prompt_logprobs is None
    assert completion(logprobs=2, echo=True).wants_prompt_logprobs == 2
    assert completion(prompt_logprobs=4, echo=True).wants_prompt_logprobs == 4


def test_best_of_equal_to_n_is_no_more_than_n() -> None:
    assert completion(n=2, best_of=2).n == 2


def test_biases_by_token() -> None:
    assert chat(logit_bias={"5": 1, "7": -100}).token_biases == {5: 1.0, 7: -100.0}
    assert chat().token_biases is None


def test_plain_chats_need_no_parser() -> None:
    fields = {"response_format": {"type": "text"}, "reasoning_effort": "low"}
    assert chat(**fields).chat_fields(parses_reasoning=False) is None
    assert chat(tools=[TOOL], tool_choice="none").chat_fields(parses_reasoning=False) is None
    assert chat().chat_fields(parses_reasoning=True) == {}
    assert completion().chat_fields(parses_reasoning=True) is None


def test_chat_fields_are_those_that_decide() -> None:
    shown = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}
    named = {"type": "function", "function": {"name": "f"}}
    assert chat(tools=[TOOL]).chat_fields(False) == {"tools": [shown], "tool_choice": "auto"}
    assert chat(tools=[TOOL], tool_choice=named).chat_fields(False) == {
        "tools": [shown],
        "tool_choice": named,
    }
    assert chat(response_format=SCHEMA).chat_fields(False) == {"response_format": SCHEMA}
    fields = {
        "structured_outputs": {"choice": ["a", "b"]},
        "include_reasoning": False,
        "reasoning_effort": "high",
        "chat_template_kwargs": {"enable_thinking": True},
    }
    assert chat(**fields).chat_fields(True) == fields
    form = {"structured_outputs": {"json": {"type": "object"}}}
    assert completion(**form).chat_fields(False) == form


def test_nulls_inside_schemas_stay() -> None:
    schema = {"type": "object", "properties": {"a": {"default": None, "enum": [None, 1]}}}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    fields = chat(response_format=form, tools=[tool]).chat_fields(False) or {}
    assert fields["response_format"] == form
    assert fields["tools"][0]["function"]["parameters"] == schema
    assert chat(response_format=form).as_openai()["response_format"] == form
    structured = {"structured_outputs": {"json": schema}}
    assert completion(**structured).chat_fields(False) == structured


def test_only_parts_that_are_no_text_need_the_replica() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    text = {"type": "text", "text": "a"}
    assert not chat(messages=[{"role": "user", "content": [text]}]).has_other_parts
    body = chat(messages=[{"role": "user", "content": [text, image]}], top_p=None)
    assert body.has_other_parts
    assert body.as_openai() == {
        "model": "m",
        "messages": [{"role": "user", "content": [text, image]}],
    }


def test_the_size_of_what_is_rendered() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "x" * 30}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a" * 10}, "bb"]},
        {"role": "assistant", "reasoning": "r" * 5, "tool_calls": [call]},
    ]
    assert chat(messages=turns).conversation().text_size() == 47
    assert chat(messages=turns, tools=[TOOL]).conversation().text_size() > 47


def test_echo_repeats_the_message_that_is_continued() -> None:
    begun = [USER, {"role": "assistant", "content": "It is"}]
    assert chat(messages=begun, echo=True).echoed_text == "It is"
    assert chat(messages=begun).echoed_text == ""
    assert chat(echo=True).echoed_text == ""
    assert chat(echo=True, add_generation_prompt=False).echoed_text == "hello"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
message_fields = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={
        "content": json_values | st.lists(st.text(max_size=5), max_size=3),
        "name": st.text(max_size=5),
        "reasoning": st.text(max_size=5),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {
                    "id": st.text(max_size=3),
                    "function": st.fixed_dictionaries(
                        {
                            "name": st.text(max_size=3),
                            "arguments": st.text(max_size=9) | json_values,
                        }
                    ),
                }
            ),
            max_size=2,
        ),
    },
)
some_fields = st.dictionaries(
    st.sampled_from(sorted({*ChatBody.model_fields} - {"model", "messages"})),
    json_values,
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(message_fields, min_size=1, max_size=3), some_fields)
def test_any_conversation_is_encoded_or_refused(
    tokenizer_folder: Path, messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    try:
        body = chat(messages=messages, **fields)
        ids = PromptEncoder(tokenizer_folder).encode_chat(body.conversation())
    except BadRequestError:
        return
    assert all(isinstance(i, int) for i in ids)


@given(st.sampled_from(sorted(CompletionBody.model_fields)), json_values)
def test_any_json_in_a_completion_is_read_or_refused(field: str, value: Any) -> None:
    try:
        body = completion(**{field: value})
    except BadRequestError:
        return
    assert body.prompts()
    assert 1 <= body.n <= 2048


@pytest.mark.parametrize("penalty", [1e-320, 1e-46, 1e-38, 0.0099, 10.1])
@pytest.mark.parametrize("body", [chat, completion])
def test_a_penalty_that_makes_logits_infinite_is_refused_by_name(body: Any, penalty: float) -> None:
    assert body(repetition_penalty=0.01).repetition_penalty == 0.01
    with pytest.raises(BadRequestError, match="repetition_penalty"):
        body(repetition_penalty=penalty)
