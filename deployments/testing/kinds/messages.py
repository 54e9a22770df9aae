"""Anthropic's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployments.testing.kinds.bodies import chat_body
from deployments.testing.kinds.kind import Kind, Right
from deployments.testing.kinds.reading import read_message
from deployments.testing.kinds.right import right_text, right_use


def _message_kind(name: str, right: Right, **fields: Any) -> Kind:
    def body(number: int) -> dict[str, Any]:
        return {**chat_body(number), "system": "w4 w5", **fields}

    return Kind(name, "/v1/messages", body, read_message, right, asks_usage={})


_MESSAGE_TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


def _message_round_trip(number: int) -> dict[str, Any]:
    call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "w7 w8"}
    body = chat_body(number, tools=[_MESSAGE_TOOL])
    body["messages"] += [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    return body


MESSAGES: Sequence[Kind] = (
    _message_kind("messages", right_text),
    _message_kind("messages-stop", right_text, stop_sequences=["never"]),
    _message_kind("messages-any", right_use, tools=[_MESSAGE_TOOL], tool_choice={"type": "any"}),
    _message_kind(
        "messages-tool",
        right_use,
        tools=[_MESSAGE_TOOL],
        tool_choice={"type": "tool", "name": "weather"},
    ),
    Kind(
        "messages-result",
        "/v1/messages",
        _message_round_trip,
        read_message,
        right_text,
        asks_usage={},
    ),
)
