"""Request bodies: what is accepted, and that a refusal names the field."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody, parse_body
from weir.errors import BadRequestError

MESSAGES = [{"role": "user", "content": "hello"}]


def _chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def test_max_completion_tokens_wins() -> None:
    body = parse_body(ChatBody, _chat(max_tokens=5, max_completion_tokens=7))
    assert body.max_output_tokens == 7


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop_token_ids": [1, -2]}, "stop_token_ids[1]"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"priority": 5}, "priority"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "x" * 257}, "cache_salt"),
        ({"messages": [{"role": "user", "content": "a", "sneaky": 1}]}, "messages[0].sneaky"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_body(ChatBody, _chat(**fields))
    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize("value", [8, 8.0, "8"])
def test_whole_numbers_however_they_are_written(value: Any) -> None:
    fields = {"max_tokens": value, "n": value, "seed": value, "top_k": value}
    body = parse_body(ChatBody, _chat(**fields, stop_token_ids=[value]))
    assert (body.max_tokens, body.n, body.seed, body.top_k, body.stop_token_ids) == (
        8,
        8,
        8,
        8,
        [8],
    )
    for wrong in ("8.5", "eight", "", "8" * 30, 8.5):
        with pytest.raises(BadRequestError, match="max_tokens"):
            parse_body(ChatBody, _chat(max_tokens=wrong))


@pytest.mark.parametrize(
    ("prompt", "param"),
    [("", "prompt"), ([], "prompt"), ([1, "a"], "prompt"), (5, "prompt"), ([[]], "prompt")],
)
def test_prompts_that_are_none(prompt: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_body(CompletionBody, json.dumps({"model": "m", "prompt": prompt}).encode())
    assert (refused.value.param or "").startswith(param)


@pytest.mark.parametrize("prompt", ["text", [1, 2], ["a", "b"], [[1], [2, 3]]])
def test_the_four_kinds_of_prompt(prompt: Any) -> None:
    body = parse_body(CompletionBody, json.dumps({"model": "m", "prompt": prompt}).encode())
    assert body.prompt == prompt


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'{"model": "\xff"}', b"nan"])
def test_bodies_that_are_no_json_object(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_body(EmbeddingBody, body)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_body(ChatBody, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ChatBody.model_fields)), json_values)
def test_any_json_in_any_field_parses_or_is_refused(field: str, value: Any) -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES, field: value}).encode()
    with contextlib.suppress(BadRequestError):
        assert parse_body(ChatBody, body).model == "m" or field == "model"
