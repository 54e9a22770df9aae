"""What is too large to compile is refused by name, and what is usual passes."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.schemas import MAX_COUNT, MAX_DEPTH, MAX_STATES, check_chat, states_of
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


def lists(most: int, items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "maxItems": most, "items": items}


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
        tool({"type": "array", "minItems": 1e9, "items": {"type": "string", "maxLength": 100_000}}),
        tool({"type": "array", "minItems": MAX_COUNT}) | {"tool_choice": "required"},
        {"structured_outputs": {"regex": "[a-z]{3,9}", "json": '{"type": "object"}'}},
        {"structured_outputs": {"regex": r"\{[0-9}]{200}\}{2}"}},
        json_schema(lists(100, lists(10, {"type": "string", "maxLength": 10}))),
        json_schema(
            {
                "$defs": {"tree": lists(1_000, {"$ref": "#/$defs/tree"})},
                "anyOf": [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/tree"}],
            }
        ),
        {"structured_outputs": {"choice": ["yes", "no"], "json": "no JSON"}},
        {"tools": "not a list", "response_format": 7, "structured_outputs": []},
    ],
)
def test_usual_schemas_pass(chat: dict[str, Any]) -> None:
    check_chat(chat)


@pytest.mark.parametrize(
    ("chat", "field", "why"),
    [
        (json_schema(nested(70)), "response_format.json_schema.schema", "levels deep"),
        (json_schema({"enum": ["x" * 70_000]}), "response_format.json_schema.schema", "KiB"),
        (json_schema({"maxLength": 10_001}), "response_format.json_schema.schema", "maxLength"),
        (
            json_schema({"pattern": "(ab){1,99999}"}),
            "response_format.json_schema.schema",
            "repeats",
        ),
        (
            tool({"items": {"minItems": 1e9}}) | {"tool_choice": "required"},
            "tools[1].function.parameters",
            "minItems",
        ),
        (
            {"tools": [{"function": {"parameters": {"maxLength": 1e6}, "strict": True}}]},
            "tools[0].function.parameters",
            "maxLength",
        ),
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
            {"structured_outputs": {"regex": "((a{100}){100}){100}"}},
            "structured_outputs.regex",
            "repeats",
        ),
        (
            {"structured_outputs": {"regex": "(" + "abcdefghij" * 10 + "){1,600}"}},
            "structured_outputs.regex",
            "states",
        ),
        (
            json_schema(lists(200, lists(200, {"type": "string"}))),
            "response_format.json_schema.schema",
            "maxItems beyond 10,000, with the counts around it (200)",
        ),
        (
            json_schema(lists(200, {"type": "string", "maxLength": 200})),
            "response_format.json_schema.schema",
            "maxLength",
        ),
        (
            json_schema(lists(200, {"type": "string", "pattern": "a{200}"})),
            "response_format.json_schema.schema",
            "repeats",
        ),
        (
            json_schema({"properties": {str(n): {"maxLength": 9_000} for n in range(9)}}),
            "response_format.json_schema.schema",
            "states",
        ),
        (tool({"$ref": "#"}), "tools[1].function.parameters", "leads back to itself"),
        (
            json_schema({"$defs": {n: {"$ref": f"#/$defs/{m}"} for n, m in ("ab", "bc", "cb")}}),
            "response_format.json_schema.schema",
            "leads back to itself",
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


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("abc", 3),
        ("a{5}", 5),
        ("x{2}{3}", 6),
        ("(ab){1,4}c+", 9),
        ("((a{2}){3}){4}", 24),
        ("[^]abc]{4}|d", 5),
        (r"\{3\}", 3),
        ("a{,5}b", 6),
        ("(a{3", 3),
        ('root ::= "(" [a-z]{2,8} ")"', None),
        ("((a{100}){100}){100}", MAX_STATES),
        ('{"type": "string", "maxLength": 7}', 7),
        ('{"type": "array", "maxItems": 3, "items": {"maxLength": 7}}', 22),
    ],
)
def test_states_are_counted_through_repetitions(text: str, states: int | None) -> None:
    assert states_of(text) == states or states is None


def test_references_are_followed_in_a_time_that_grows_with_their_number() -> None:
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(1_500)}
    check_chat(json_schema({"$defs": chain | {"1500": {"type": "string"}}}))
