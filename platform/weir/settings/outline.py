"""Which keys there are at a place of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from weir.settings.section import Place

Schema = dict[str, Any]


def keys_at(place: Place) -> tuple[str, ...]:
    """The keys that the mapping at ``place`` may have; none where they are free."""
    whole = _bare_schema()
    nodes: list[Mapping[str, Any]] = [whole]
    for part in place:
        nodes = [below for node in nodes for below in _below(whole, node, part)]
    return tuple(key for node in nodes for each in forms(whole, node) for key in _keys(each))


def _below(whole: Schema, node: Mapping[str, Any], part: str | int) -> Iterator[Mapping[str, Any]]:
    for form in forms(whole, node):
        if isinstance(part, int):
            below = form.get("items")
        else:
            below = form.get("properties", {}).get(part) or form.get("additionalProperties")
        if isinstance(below, Mapping):
            yield below
        yield from form.get("patternProperties", {}).values()


def forms(whole: Schema, node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a node may be, references followed."""
    if (reference := node.get("$ref")) is not None:
        yield from forms(whole, whole["$defs"][reference.rpartition("/")[2]])
    for form in node.get("anyOf", ()):
        yield from forms(whole, form)
    yield node


def _keys(node: Mapping[str, Any]) -> Iterable[str]:
    properties: Mapping[str, Any] = node.get("properties", {})
    return properties


@cache
def _bare_schema() -> Schema:
    from weir.settings.tree import Settings

    return Settings.model_json_schema()
