"""The settings as a JSON schema (draft 2020-12), for editors and for charts.

The schema is of a file that lies over a profile: what a shipped profile says already need not be
said again. It says what single keys may be; what keys have to do with each other, and with the rest
of the world, :func:`weir.settings.examine.examine` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from weir.settings.load import profile_names, read_profile
from weir.settings.meanings import meanings
from weir.settings.outline import Schema
from weir.settings.parts import Parts, Registry
from weir.settings.tree import Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Plain(GenerateJsonSchema):
    """Without titles of keys, which only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def settings_schema(parts: Parts) -> Schema:
    """Of the whole tree, with what each key means and with the parameters of all ``parts``."""
    whole = Settings.model_json_schema(schema_generator=_Plain)
    sections = whole["$defs"]
    meant = meanings()
    _choose(sections, "RoutingSettings", "policy", parts.policies, meant)
    _choose(sections, "DisaggregationSettings", "rule", parts.rules, meant)
    _choose(sections, "ScalingSettings", "policy", parts.autoscaling, meant, "autoscaling")
    limits = sections["AdmissionSettings"]["properties"]["limits"]
    limits |= _limits(sections, parts.limits, meant)
    _describe(whole, whole, "", meant)
    for each in (*sections.values(), whole):
        _unwrap(each)
    trees = [read_profile(name) for name in profile_names()]
    _loosen(whole, whole, trees)
    return {"$schema": DIALECT, **whole, "title": "Settings of weir"}


def params_schema(adapter: TypeAdapter[Any]) -> Schema:
    """Of the parameters of a part."""
    made = adapter.json_schema(schema_generator=_Plain)
    _unwrap(made)
    return {**made, "additionalProperties": False}


def _choose(
    sections: Schema,
    section: str,
    key: str,
    registry: Registry[Any],
    meant: Mapping[str, str],
    chapter: str = "models",
) -> None:
    """The section's ``params`` are those of the part that its ``key`` names."""
    properties = sections[section]["properties"]
    properties[key]["enum"] = list(registry.names())
    usual = properties[key]["default"]
    cases = []
    for name in registry.names():
        reference = _add_params(sections, registry, name, chapter, meant)
        named: Schema = {"properties": {key: {"const": name}}}
        if name != usual:
            named["required"] = [key]
        cases.append({"if": named, "then": {"properties": {"params": reference}}})
    sections[section]["allOf"] = cases


def _limits(sections: Schema, registry: Registry[Any], meant: Mapping[str, str]) -> Schema:
    named = {
        name: {
            "anyOf": [
                _add_params(sections, registry, name, "admission.limits", meant),
                {"type": "null"},
            ]
        }
        for name in registry.names()
    }
    return {"properties": named, "additionalProperties": False}


def _add_params(
    sections: Schema, registry: Registry[Any], name: str, chapter: str, meant: Mapping[str, str]
) -> Schema:
    made = params_schema(registry.adapter(name))
    _describe(made, made, f"{chapter}.{name}", meant)
    title = f"{registry.what} {name}".replace(" ", "-")
    sections[title] = made
    return {"$ref": f"#/$defs/{title}"}


def _describe(whole: Schema, node: Any, path: str, meant: Mapping[str, str]) -> None:
    """Where sections share a definition, the first that names a key says what it means."""
    if not isinstance(node, dict):
        return
    if (reference := node.get("$ref")) is not None:
        _describe(whole, whole["$defs"][reference.rpartition("/")[2]], path, meant)
    for form in node.get("anyOf", ()):
        _describe(whole, form, path, meant)
    for inner in ("items", "additionalProperties"):
        _describe(whole, node.get(inner), path, meant)
    for inner in node.get("patternProperties", {}).values():
        _describe(whole, inner, path, meant)
    for key, value in node.get("properties", {}).items():
        below = f"{path}.{key}" if path else key
        if below in meant:
            value.setdefault("description", meant[below])
        _describe(whole, value, below, meant)


def _unwrap(section: Schema) -> None:
    """Docstrings as plain paragraphs."""
    if "description" in section:
        paragraphs = str(section["description"]).replace("``", "`").split("\n\n")
        section["description"] = "\n\n".join(" ".join(each.split()) for each in paragraphs)


def _loosen(whole: Schema, node: Any, trees: list[Any]) -> None:
    """``trees``: what profiles have here. What one of them says is not required of a file."""
    given = [tree for tree in trees if isinstance(tree, dict)]
    if not given or not isinstance(node, dict):
        return
    if (reference := node.get("$ref")) is not None:
        _loosen(whole, whole["$defs"][reference.rpartition("/")[2]], given)
    for form in node.get("anyOf", ()):
        _loosen(whole, form, given)
    if "required" in node:
        still = [key for key in node["required"] if not any(key in tree for tree in given)]
        node |= {"required": still}
        if not still:
            del node["required"]
    properties = node.get("properties", {})
    for key, value in properties.items():
        _loosen(whole, value, [tree.get(key) for tree in given])
    others = [value for tree in given for key, value in tree.items() if key not in properties]
    for free in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
        _loosen(whole, free, others)
