"""The table of fields: complete, up to date, and true row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParams
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest

from deployments.gateway.bodies.generating import SamplingFields
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.fields import BODIES, Row, rows, table
from weir.errors import BadRequestError

USER = {"role": "user", "content": "hello"}
SEES = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "object"}
NAMED_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, MESSAGES, COUNT = "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens"
LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER]},
    TEXT: {"prompt": "hello"},
    RESPONSES: {"input": "hello"},
    EMBEDDINGS: {"input": "hello"},
    MESSAGES: {"messages": [USER], "max_tokens": 4},
    COUNT: {"messages": [USER]},
}
#: A value of each field that is used, and what else it needs. Some by path.
EXAMPLES: dict[str, dict[str, Any]] = {
    "cache_salt": {"cache_salt": "one of my users"},
    "min_tokens": {"min_tokens": 3},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.5},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "presence_penalty": {"presence_penalty": 1.5},
    "repetition_penalty": {"repetition_penalty": 1.5},
    "seed": {"seed": 8},
    "stop": {"stop": ["x"]},
    "stop_token_ids": {"stop_token_ids": [5]},
    "bad_words": {"bad_words": ["x"]},
    "allowed_token_ids": {"allowed_token_ids": [5, 6]},
    "ignore_eos": {"ignore_eos": True},
    "skip_special_tokens": {"skip_special_tokens": False},
    "spaces_between_special_tokens": {"spaces_between_special_tokens": False},
    "include_stop_str_in_output": {"include_stop_str_in_output": True},
    "logit_bias": {"logit_bias": {"5": 1}},
    "thinking_token_budget": {"thinking_token_budget": 9},
    "repetition_detection": {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
    "model": {"model": "other"},
    "stream": {"stream": True},
    "stream_options": {"stream": True, "stream_options": {"include_usage": True}},
    "max_tokens": {"max_tokens": 7},
    "max_completion_tokens": {"max_completion_tokens": 7},
    "max_output_tokens": {"max_output_tokens": 7},
    "n": {"n": 2},
    "best_of": {"best_of": 2, "n": 2},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "response_format": {"response_format": {"type": "json_object"}},
    "structured_outputs": {"structured_outputs": {"regex": "a"}},
    "echo": {"echo": True},
    "return_token_ids": {"return_token_ids": True},
    "return_tokens_as_token_ids": {"return_tokens_as_token_ids": True},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 5},
    "truncation_side": {"truncation_side": "left"},
    "user": {"user": "u"},
    "metadata": {"metadata": {"a": "b"}},
    "store": {"store": True},
    "messages": {"messages": [USER, USER]},
    "prompt": {"prompt": [5]},
    "input": {"input": "other"},
    "tools": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL], "tool_choice": "required"},
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "reasoning_effort": {"tools": [TOOL], "reasoning_effort": "low"},
    "include_reasoning": {"tools": [TOOL], "include_reasoning": False},
    "add_generation_prompt": {"add_generation_prompt": False},
    "continue_final_message": {"continue_final_message": True, "add_generation_prompt": False},
    "add_special_tokens": {"add_special_tokens": True},
    "documents": {"documents": [{"text": "x"}]},
    "chat_template_kwargs": {"chat_template_kwargs": {"a": 1}},
    "mm_processor_kwargs": {"mm_processor_kwargs": {"max_pixels": 5000}, "messages": [SEES]},
    "media_io_kwargs": {"media_io_kwargs": {"video": {"num_frames": 4}}, "messages": [SEES]},
    "encoding_format": {"encoding_format": "base64"},
    "dimensions": {"dimensions": 4},
    "instructions": {"instructions": "x"},
    "previous_response_id": {},
    "background": {"background": True},
    "text": {"text": {"format": {"type": "json_object"}}},
    "reasoning": {"reasoning": {"effort": "low"}},
    "include": {"include": ["message.output_text.logprobs"]},
    "truncation": {"truncation": "auto"},
    "stop_sequences": {"stop_sequences": ["x"]},
    "system": {"system": "x"},
    "thinking": {"thinking": {"type": "enabled"}},
    "output_config": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "output_format": {"output_format": {"type": "json_schema", "schema": SCHEMA}},
}
_FUNCTION = {"type": "function", "name": "f"}
_CLAUDE = {"name": "f", "input_schema": SCHEMA}
BY_PATH: dict[str, dict[str, dict[str, Any]]] = {
    TEXT: {"logprobs": {"logprobs": 2}, "add_special_tokens": {"add_special_tokens": False}},
    EMBEDDINGS: {"add_special_tokens": {"add_special_tokens": False}},
    RESPONSES: {
        "top_logprobs": {"top_logprobs": 2},
        "tools": {"tools": [_FUNCTION]},
        "tool_choice": {"tools": [_FUNCTION], "tool_choice": "required"},
        "parallel_tool_calls": {"tools": [_FUNCTION], "parallel_tool_calls": False},
        "include_reasoning": {"tools": [_FUNCTION], "include_reasoning": False},
        "reasoning": {"tools": [_FUNCTION], "reasoning": {"effort": "low"}},
        "stream_options": {"stream": True, "stream_options": {}},
    },
    MESSAGES: {
        "tools": {"tools": [_CLAUDE]},
        "tool_choice": {"tools": [_CLAUDE], "tool_choice": {"type": "any"}},
        "thinking": {"tools": [_CLAUDE], "thinking": {"type": "disabled"}},
    },
}
BY_PATH[COUNT] = BY_PATH[MESSAGES]
TOP = [
    (path, row)
    for path, model in BODIES.items()
    for row in rows(model)
    if "." not in row.name and "[" not in row.name
]


def _parse(path: str, fields: dict[str, Any], unknown: Unknown | None = None) -> Any:
    dialect = DIALECTS.find(path)
    assert dialect is not None
    body = {"model": "m", **LEAST[path], **fields}
    return dialect.parse(json.dumps(body).encode(), unknown or Unknown())


def _submitted(path: str, body: Any) -> Any:
    dialect = DIALECTS.find(path)
    assert dialect is not None
    return dialect.submission(body, [5], dialect.output_limit(body) or 8, False)


def _names(source: Any) -> set[str]:
    fields = getattr(source, "model_fields", None)
    if fields is not None:
        return set(fields)
    return {name for each in source.__mro__ for name in getattr(each, "__annotations__", ())} or {
        *source.__annotations__
    }


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (CHAT, ChatParams),
        (CHAT, ChatCompletionRequest),
        (TEXT, TextParams),
        (TEXT, CompletionRequest),
        (RESPONSES, ResponseCreateParamsBase),
        (RESPONSES, ResponsesRequest),
        (EMBEDDINGS, EmbeddingCreateParams),
        (EMBEDDINGS, EmbeddingCompletionRequest),
        (MESSAGES, message_create_params.MessageCreateParamsBase),
        (MESSAGES, AnthropicMessagesRequest),
        (COUNT, message_count_tokens_params.MessageCountTokensParams),
        (COUNT, AnthropicCountTokensRequest),
    ],
)
def test_every_documented_field_is_in_the_table(path: str, source: Any) -> None:
    """A new field of an official client or of vLLM makes this fail by its name."""
    named = _names(source)
    assert "model" in named
    assert named - {row.name for row in rows(BODIES[path])} == set()


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "fields.md"
    told = "python -m deployments.gateway.fields > docs/fields.md"
    assert page.read_text("utf-8") == table(), told


@pytest.mark.parametrize(("path", "row"), TOP, ids=[f"{p}-{r.name}" for p, r in TOP])
def test_each_row_is_true(path: str, row: Row) -> None:
    plain = _parse(path, {})
    unknown = Unknown()
    if row.fate == "refused":
        with pytest.raises(BadRequestError) as refused:
            _parse(path, {row.name: {"x": 1}})
        assert refused.value.param == row.name
        assert row.reason.split(" (accepted")[0] in refused.value.message
        assert _parse(path, {row.name: None}) == plain
        return
    if row.fate == "a hint without effect":
        body = _parse(path, {row.name: {"x": 1}}, unknown)
        assert body == plain
        assert unknown.headers() == []
        return
    example = BY_PATH.get(path, {}).get(row.name, EXAMPLES.get(row.name))
    assert example is not None, "a new field needs an example"
    if not example:
        return  # it is about another request
    body = _parse(path, example, unknown)
    others = {name: value for name, value in example.items() if name != row.name}
    if row.name not in LEAST[path]:
        try:
            without = _parse(path, others)
        except BadRequestError:
            without = plain
        assert body != without
        if row.fate == "passed to the engine":
            assert _submitted(path, body) != _submitted(path, without)
    assert unknown.headers() == []


@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
@pytest.mark.parametrize("name", sorted(SamplingFields.model_fields))
def test_sampling_fields_reach_the_engine_as_they_are(path: str, name: str) -> None:
    value = EXAMPLES[name][name]
    sampling = _submitted(path, _parse(path, {name: value})).sampling
    told = getattr(sampling, name)
    if name == "logit_bias":
        assert told == {5: 1.0}
    elif name == "repetition_detection":
        assert (told.max_pattern_size, told.min_pattern_size, told.min_count) == (4, 0, 3)
    else:
        assert told == value


def _nullable() -> list[tuple[str, str]]:
    return [
        (path, row.name) for path, row in TOP if row.name not in LEAST[path] and row.name != "model"
    ]


@pytest.mark.parametrize(("path", "name"), _nullable())
def test_null_is_absent(path: str, name: str) -> None:
    assert _parse(path, {name: None}) == _parse(path, {})


def _with_nulls(value: Any, path: str) -> Any:
    """The value, with every field that its place may have and does not have as null."""
    if isinstance(value, list):
        return [_with_nulls(each, path + "[]") for each in value]
    if not isinstance(value, dict):
        return value
    nested = {n: _with_nulls(v, f"{path}.{n}" if path else n) for n, v in value.items()}
    before = f"{path}." if path else ""
    for _, model in BODIES.items():
        for row in rows(model):
            rest = row.name.removeprefix(before)
            if row.name.startswith(before) and "." not in rest and "[" not in rest:
                nested.setdefault(rest, None)
    return nested


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (CHAT, "messages", [USER, {"role": "assistant", "content": "x"}, USER]),
        (CHAT, "tools", [TOOL]),
        (CHAT, "response_format", NAMED_SCHEMA),
        (CHAT, "structured_outputs", {"regex": "a"}),
        (CHAT, "repetition_detection", {"max_pattern_size": 4, "min_count": 2}),
        (RESPONSES, "input", [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]),
        (RESPONSES, "text", {"format": {"type": "text"}}),
        (RESPONSES, "reasoning", {"effort": "low"}),
        (MESSAGES, "messages", [{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
        (MESSAGES, "tools", [_CLAUDE]),
        (MESSAGES, "thinking", {"type": "enabled"}),
        (MESSAGES, "output_config", {"effort": "low"}),
    ],
)
def test_null_is_absent_in_nested_objects(path: str, name: str, value: Any) -> None:
    filled = _with_nulls(value, name)
    assert filled != value
    assert _parse(path, {name: filled}) == _parse(path, {name: value})
