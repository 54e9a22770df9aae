"""Bounds of the schemas and grammars that a request may have compiled.

A grammar's size, and the time to compile it, can be far beyond that of the schema that asks for it:
``maxLength: 1000000`` is nineteen characters, and a million states. Counts inside counts multiply:
``((a{100}){100}){100}`` is a million states, too. What goes beyond a bound is refused before
anything is compiled, with the name of the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from weir.errors import BadRequestError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 64
#: How often something may be repeated, counts around it multiplied.
MAX_COUNT = 10_000
#: How many things all repetitions of one schema or pattern may come to.
MAX_STATES = 50_000
#: By what a keyword multiplies what is below it (None: nothing is).
_COUNTS: dict[str, str | None] = {
    "minItems": "items",
    "maxItems": "items",
    "minProperties": "properties",
    "maxProperties": "properties",
    "minLength": None,
    "maxLength": None,
}
_BELOW_ITEMS = frozenset({"items", "prefixItems", "additionalItems", "unevaluatedItems"})
_BELOW_PROPERTIES = frozenset(
    {"properties", "patternProperties", "additionalProperties", "propertyNames"}
)
#: A repetition with its counts, an escaped character, a class of characters, or one character.
_PART = re.compile(
    r"\{\s*(?=[\d,])(\d*)\s*(?:,\s*(\d*)\s*)?\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^*+?|^$]", re.DOTALL
)


def check_chat(chat: dict[str, Any]) -> None:
    """Refuse what is too large to compile in the ``tools``, ``response_format`` and
    ``structured_outputs`` of a chat body. What has another shape than a schema's is left to the
    body's own model to refuse.

    The arguments of a tool that the model is free to call are read, not enforced: nothing is
    compiled of its schema, and it may count as far as it likes. (Coding agents' tools do.)

    Raises:
        BadRequestError: a schema or grammar goes beyond a bound; the message names the field.
    """
    forced = chat.get("tool_choice") not in (None, "auto", "none")
    for number, tool in enumerate(_items(chat.get("tools"))):
        schema = _at(tool, "function", "parameters")
        enforced = forced or _at(tool, "function", "strict") is True
        check_schema(schema, f"tools[{number}].function.parameters", enforced)
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
            _check_text(value, field, 1)
        else:
            check_schema(value, field)


def states_of(text: str) -> int:
    """About how many states a grammar has: of a JSON schema, a regular expression or any other
    notation. What goes beyond a bound has :data:`MAX_STATES`."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    try:
        if isinstance(schema, dict | list):
            return check_schema(schema, "")
        return _check_text(text, "", 1)
    except BadRequestError:
        return MAX_STATES


def check_schema(schema: Any, field: str, enforced: bool = True) -> int:
    """Refuse a JSON schema that is too deep, too large, or is nothing but a reference to itself;
    one that is ``enforced``, and so compiled, also if it counts too far. Returns about how many
    states its grammar has."""
    level: list[tuple[Any, int]] = [(schema, 1)] if isinstance(schema, dict | list) else []
    depth = states = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refusal(field, f"is nested more than {MAX_DEPTH} levels deep")
        below: list[tuple[Any, int]] = []
        for node, times in level:
            if isinstance(node, dict):
                states += _states(node, times, field) if enforced else 0
                below.extend(_children(node, times))
            else:
                below.extend((each, times) for each in node)
        if states > MAX_STATES:
            raise _refusal(field, f"comes to more than {MAX_STATES:,} states with its repetitions")
        level = [(node, times) for node, times in below if isinstance(node, dict | list)]
    if isinstance(schema, dict | list) and len(json.dumps(schema)) > MAX_BYTES:
        raise _refusal(field, f"has more than {MAX_BYTES // 1024} KiB")
    if isinstance(schema, dict) and _refers_to_itself(schema):
        raise _refusal(field, "has a $ref that leads back to itself")
    return states


def _states(node: dict[str, Any], times: int, field: str) -> int:
    """What a schema's own keywords come to, repeated ``times``."""
    longest = 1
    for name in _COUNTS.keys() & node.keys():
        count = _count(node[name])
        if count * times > MAX_COUNT:
            raise _refusal(field, f"has a {name} beyond {MAX_COUNT:,}{_around(times)}")
        if _COUNTS[name] is None:
            longest = max(longest, count)
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        longest = max(longest, _check_text(pattern, field, times) // times)
    return longest * times


def _children(node: dict[str, Any], times: int) -> Iterator[tuple[Any, int]]:
    counts = {"items": 1, "properties": 1}
    for name, below in _COUNTS.items():
        if below is not None and name in node:
            counts[below] = max(counts[below], _count(node[name]))
    for name, value in node.items():
        if name in _BELOW_ITEMS:
            yield value, times * counts["items"]
        elif name in _BELOW_PROPERTIES:
            yield value, times * counts["properties"]
        else:
            yield value, times


def _count(value: Any) -> int:
    counts = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return int(min(value, 10 * MAX_COUNT)) if counts else 0


def _check_text(text: str, field: str, times: int) -> int:
    """A regular expression or a grammar in its own notation, repeated ``times``: how many states
    that comes to."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _refusal(field, f"has more than {MAX_BYTES // 1024} KiB")
    most, states = _repeated(text)
    if most * times > MAX_COUNT:
        raise _refusal(field, f"repeats something more than {MAX_COUNT:,} times{_around(times)}")
    if states * times > MAX_STATES:
        raise _refusal(field, f"comes to more than {MAX_STATES:,} states with its repetitions")
    return states * times


@dataclass(slots=True)
class _Group:
    """A group that is open: how often its innermost part is repeated and how many states it has so
    far; and the same of its last part, which a repetition is about."""

    most: int = 1
    states: int = 0
    last_most: int = 1
    last_states: int = 0

    def add(self, states: int, most: int = 1) -> None:
        self.states += states
        self.most = max(self.most, most)
        self.last_states, self.last_most = states, most

    def repeat(self, count: int) -> None:
        self.states += self.last_states * (count - 1)
        self.last_states *= count
        self.last_most *= count
        self.most = max(self.most, self.last_most)


def _repeated(text: str) -> tuple[int, int]:
    """How often the innermost part of a pattern is repeated, counts multiplied; and how many states
    the pattern has, where what is repeated counts as so many copies."""
    groups = [_Group()]
    for found in _PART.finditer(text):
        part, group = found[0], groups[-1]
        if found[1] is not None:
            group.repeat(max(1, *(_number(count) for count in found.group(1, 2))))
        elif part == "(":
            groups.append(_Group())
        elif part == ")" and len(groups) > 1:
            groups.pop()
            groups[-1].add(group.states, group.most)
        else:
            group.add(1)
    while len(groups) > 1:  # brackets in a grammar may be text
        group = groups.pop()
        groups[-1].add(group.states, group.most)
    return groups[0].most, groups[0].states


def _number(count: str | None) -> int:
    return min(int(count[:9]), 10 * MAX_COUNT) if count else 0


def _refers_to_itself(schema: dict[str, Any]) -> bool:
    """Whether following references alone leads in a circle, in which nothing is ever read."""
    harmless: set[str] = set()
    for start in _objects(schema):
        followed: set[str] = set()
        node: Any = start
        while isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
            if reference in followed:
                return True
            if reference in harmless:
                break
            followed.add(reference)
            node = _resolve(schema, reference)
        harmless |= followed
    return False


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _resolve(schema: Any, reference: str) -> Any:
    node = schema
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name and isinstance(node, dict):
            node = node.get(name.replace("~1", "/").replace("~0", "~"))
        elif name:
            return None
    return node


def _loaded(text: str, field: str) -> Any:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
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


def _around(times: int) -> str:
    return f", with the counts around it ({times:,})" if times > 1 else ""


def _refusal(field: str, what: str) -> BadRequestError:
    return BadRequestError(f"{field} {what}.", param=field)
