"""Fields of a body are for the engine what vLLM's own server makes of the same body."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from deployments.gateway.bodies.requests import ChatBody, CompletionBody, parse_body
from deployments.gateway.dialects.generating import submission

DEFAULTS = {"temperature": 0.6, "top_p": 0.9, "stop_token_ids": [7]}
USER = {"role": "user", "content": "hello"}
FIELDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0, "top_k": 4, "min_p": 0.1},
    {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.1},
    {"seed": 5, "stop": "x", "stop_token_ids": [3], "include_stop_str_in_output": True},
    {"min_tokens": 3, "ignore_eos": True},
    {"skip_special_tokens": False, "spaces_between_special_tokens": False},
    {"allowed_token_ids": [1, 2, 3]},
    {"bad_words": ["no"]},
    {"logit_bias": {"5": 3, "6": -100}},
    {"thinking_token_budget": 12},
    {"thinking_token_budget": -1},
    {"repetition_detection": {"max_pattern_size": 5, "min_pattern_size": 2, "min_count": 3}},
]
COMPARED = (
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "seed", "stop", "include_stop_str_in_output", "min_tokens"),
    *("ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "allowed_token_ids"),
    *("bad_words", "logit_bias", "thinking_token_budget", "repetition_detection", "max_tokens"),
)


@pytest.fixture(scope="module")
def sampling_params() -> Any:
    """The function under test. Importing it brings in warnings of the engine's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deployments import vllm_generator
    return vllm_generator.sampling_params


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize(
    ("ours", "vllms", "least"),
    [
        (ChatBody, ChatCompletionRequest, {"messages": [USER]}),
        (CompletionBody, CompletionRequest, {"prompt": "hello"}),
    ],
)
def test_the_engine_is_told_the_same(
    sampling_params: Any, ours: Any, vllms: Any, least: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = {"model": "m", **least, **fields}
    submit = submission(parse_body(ours, json.dumps(body).encode()), [1], 20, False)
    told = sampling_params(submit.sampling, DEFAULTS)
    wanted = vllms(**body).to_sampling_params(20, DEFAULTS)
    for name in COMPARED:
        assert getattr(told, name) == getattr(wanted, name), name
    assert set(told.stop_token_ids or ()) == set(wanted.stop_token_ids or ())
