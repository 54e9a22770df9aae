"""Chat and plain completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deployments.testing.kinds.bodies import TOOLS, chat_body, text_of
from deployments.testing.kinds.kind import ANSWER_TOKENS, Kind, Right
from deployments.testing.kinds.reading import read_chat, read_completion
from deployments.testing.kinds.right import (
    right_call,
    right_echo,
    right_object,
    right_scored,
    right_text,
)

_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "words", "schema": {"type": "object"}},
}


def _prompt(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": text_of(number), "max_tokens": ANSWER_TOKENS, **fields}


def _tool_round_trip(number: int) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    body = chat_body(number, tools=TOOLS, tool_choice="auto")
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "w7 w8"},
    ]
    return body


def _image(number: int) -> dict[str, Any]:
    url = {"url": f"data:image/png;base64,{number:08d}"}
    parts = [{"type": "text", "text": text_of(number)}, {"type": "image_url", "image_url": url}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": ANSWER_TOKENS}


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _chat_kind(name: str, right: Right, body: Callable[[int], Any], choices: int = 1) -> Kind:
    return Kind(name, "/v1/chat/completions", body, read_chat, right, choices=choices)


def _completion_kind(name: str, right: Right, body: Callable[[int], Any], choices: int = 1) -> Kind:
    path = "/v1/completions"
    return Kind(name, path, body, read_completion, right, choices=choices)


def _calling(choice: Any) -> Callable[[int], dict[str, Any]]:
    return lambda number: chat_body(number, tools=TOOLS, tool_choice=choice)


OPENAI: Sequence[Kind] = (
    _chat_kind("chat", right_text, chat_body),
    _chat_kind("tools-none", right_text, _calling("none")),
    _chat_kind("tools-auto", right_text, _calling("auto")),
    _chat_kind("tools-required", right_call, _calling("required")),
    _chat_kind("tools-named", right_call, _calling(_named("weather"))),
    _chat_kind("tool-result", right_text, _tool_round_trip),
    _chat_kind("json-schema", right_object, lambda n: chat_body(n, response_format=_SCHEMA)),
    _chat_kind("logprobs", right_scored, lambda n: chat_body(n, logprobs=True, top_logprobs=2)),
    _chat_kind("n-3", right_text, lambda n: chat_body(n, n=3, seed=7), choices=3),
    _chat_kind("image", right_text, _image),
    # Of the contract's model; its answers are others than the model's own.
    _chat_kind("adapter", right_text, lambda n: chat_body(n, model="m:tone")),
    _completion_kind("completion", right_text, _prompt),
    _completion_kind("completion-logprobs", right_scored, lambda n: _prompt(n, logprobs=1)),
    _completion_kind("echo", right_echo, lambda n: _prompt(n, echo=True)),
    _completion_kind("ids", right_text, lambda n: _prompt(n) | {"prompt": [6 + n % 400, 7, 8, 9]}),
    _completion_kind(
        "three-prompts",
        right_text,
        lambda n: _prompt(n) | {"prompt": [f"{text_of(n)} w{i}" for i in (11, 12, 13)]},
        choices=3,
    ),
)
