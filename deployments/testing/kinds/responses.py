"""OpenAI's responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deployments.testing.kinds.bodies import TOOLS, text_of
from deployments.testing.kinds.kind import ANSWER_TOKENS, Kind, Right
from deployments.testing.kinds.reading import read_response
from deployments.testing.kinds.right import right_object, right_text, right_use

_TOOLS = [{"type": "function", **TOOLS[0]["function"]}]
_SCHEMA = {"type": "json_schema", "name": "words", "schema": {"type": "object"}}


def _response(number: int, **fields: Any) -> dict[str, Any]:
    return {"input": text_of(number), "max_output_tokens": ANSWER_TOKENS, **fields}


def _response_round_trip(number: int) -> dict[str, Any]:
    said = {"role": "user", "content": [{"type": "input_text", "text": text_of(number)}]}
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "w7 w8"}
    return _response(number, tools=_TOOLS) | {"input": [said, call, output]}


def _response_kind(name: str, right: Right, body: Callable[[int], Any]) -> Kind:
    return Kind(
        name,
        "/v1/responses",
        body,
        read_response,
        right,
        limit_field="max_output_tokens",
        asks_usage={},
    )


RESPONSES: Sequence[Kind] = (
    _response_kind("response", right_text, _response),
    _response_kind(
        "response-tools",
        right_use,
        lambda n: _response(n, tools=_TOOLS, tool_choice="required"),
    ),
    _response_kind("response-tool-result", right_text, _response_round_trip),
    _response_kind(
        "response-json-schema",
        right_object,
        lambda n: _response(n, text={"format": _SCHEMA}),
    ),
    Kind(
        "response-background",
        "/v1/responses",
        lambda n: _response(n, background=True),
        read_response,
        right_text,
        streams=False,
        limit_field="max_output_tokens",
        asks_usage={},
        background=True,
    ),
)
