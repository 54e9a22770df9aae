"""What is too large to compile is refused by name, and what is usual passes."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.schemas import MAX_COUNT, MAX_DEPTH, check_chat
from weir.errors import BadRequestError


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": schema}
    return schema


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    }


def tool(schema: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "f", "parameters": {"type": "object"}}
    return {"tools": [{"function": function}, {"function": {"name": "g", "parameters": schema}}]}


@pytest.mark.parametrize(
    "chat",
    [
        {},
        {"tools": None, "response_format": None, "structured_outputs": None},
        {"response_format": {"type": "json_object"}},
        json_schema(nested(MAX_DEPTH // 2 - 2)),
        json_schema({"type": "string", "maxLength": MAX_COUNT, "pattern": "a{1,20}"}),
        tool({"type": "array", "minItems": MAX_COUNT}),
        {"structured_outputs": {"regex": "[a-z]{3,9}", "json": '{"type": "object"}'}},
        {"structured_outputs": {"choice": ["yes", "no"], "json": "no JSON"}},
        {"tools": "not a list", "response_format": 7, "structured_outputs": []},
    ],
)
def test_usual_schemas_pass(chat: dict[str, Any]) -> None:
    check_chat(chat)


@pytest.mark.parametrize(
    ("chat", "field", "why"),
    [
        (json_schema(nested(40)), "response_format.json_schema.schema", "levels deep"),
        (json_schema({"enum": ["x" * 70_000]}), "response_format.json_schema.schema", "KiB"),
        (json_schema({"maxLength": 10_001}), "response_format.json_schema.schema", "maxLength"),
        (
            json_schema({"pattern": "(ab){1,99999}"}),
            "response_format.json_schema.schema",
            "repeats",
        ),
        (tool({"items": {"minItems": 1e9}}), "tools[1].function.parameters", "minItems"),
        (tool(nested(5_000)), "tools[1].function.parameters", "levels deep"),
        ({"structured_outputs": {"regex": "a{20000}"}}, "structured_outputs.regex", "repeats"),
        ({"structured_outputs": {"regex": "a" * 70_000}}, "structured_outputs.regex", "KiB"),
        (
            {"structured_outputs": {"json": '{"maxItems": 20000}'}},
            "structured_outputs.json",
            "maxItems",
        ),
        (
            {"structured_outputs": {"json": "[" * 60_000}},
            "structured_outputs.json",
            "levels deep",
        ),
        (
            {"structured_outputs": {"choice": ["y" * 70_000]}},
            "structured_outputs.choice",
            "KiB",
        ),
    ],
)
def test_what_is_too_large_is_refused_with_its_field(
    chat: dict[str, Any], field: str, why: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_chat(chat)
    assert refused.value.param == field
    assert refused.value.message.startswith(field)
    assert why in refused.value.message
