"""Bounds of the schemas and grammars that a request may have compiled.

A grammar's size, and the time to compile it, can be far beyond that of the schema that asks for it:
``maxLength: 1000000`` is nineteen characters, and a million states. What goes beyond a bound is
refused before anything is compiled, with the name of the field.
"""

from __future__ import annotations

import json
import re
from typing import Any

from weir.errors import BadRequestError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_COUNT = 10_000
_COUNTS = frozenset(
    {"maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"}
)
_REPETITION = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


def check_chat(chat: dict[str, Any]) -> None:
    """Refuse what is too large to compile in the ``tools``, ``response_format`` and
    ``structured_outputs`` of a chat body. What has another shape than a schema's is left to the
    body's own model to refuse.

    Raises:
        BadRequestError: a schema or grammar goes beyond a bound; the message names the field.
    """
    for number, tool in enumerate(_items(chat.get("tools"))):
        schema = _at(tool, "function", "parameters")
        check_schema(schema, f"tools[{number}].function.parameters")
    format_ = chat.get("response_format")
    check_schema(_at(format_, "json_schema", "schema"), "response_format.json_schema.schema")
    if _at(format_, "type") == "structural_tag":
        check_schema(format_, "response_format")
    outputs = chat.get("structured_outputs")
    for name, value in outputs.items() if isinstance(outputs, dict) else ():
        field = f"structured_outputs.{name}"
        if name in ("json", "structural_tag") and isinstance(value, str):
            check_schema(_loaded(value, field), field)
        elif isinstance(value, str):
            _check_text(value, field)
        else:
            check_schema(value, field)


def check_schema(schema: Any, field: str) -> None:
    """Refuse a JSON schema that is too deep, too large or counts too far."""
    level, depth = [schema], 0
    while level:
        if depth > MAX_DEPTH:
            raise _refusal(field, f"is nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                _check_counts(node, field)
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
        level, depth = [node for node in below if isinstance(node, dict | list)], depth + 1
    if isinstance(schema, dict | list) and len(json.dumps(schema)) > MAX_BYTES:
        raise _refusal(field, f"has more than {MAX_BYTES // 1024} KiB")


def _check_counts(node: dict[str, Any], field: str) -> None:
    for name in _COUNTS & node.keys():
        value = node[name]
        if isinstance(value, int | float) and value > MAX_COUNT:
            raise _refusal(field, f"has a {name} beyond {MAX_COUNT:,}")
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        _check_text(pattern, field)


def _check_text(text: str, field: str) -> None:
    """A regular expression or a grammar in its own notation."""
    if len(text.encode()) > MAX_BYTES:
        raise _refusal(field, f"has more than {MAX_BYTES // 1024} KiB")
    for found in _REPETITION.finditer(text):
        if any(len(count) > 6 or int(count or 0) > MAX_COUNT for count in found.groups()):
            raise _refusal(field, f"repeats something more than {MAX_COUNT:,} times")


def _loaded(text: str, field: str) -> Any:
    if len(text.encode()) > MAX_BYTES:
        raise _refusal(field, f"has more than {MAX_BYTES // 1024} KiB")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise _refusal(field, f"is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError:
        return None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _refusal(field: str, what: str) -> BadRequestError:
    return BadRequestError(f"{field} {what}.", param=field)
