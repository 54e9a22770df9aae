"""Writes what of the chart follows from something else: ``python -m k8s.generate``.

=========================  ======================================================================
``values.schema.json``     values.yaml (kinds of the defaults, comments) and the settings tree
``README.md``              values.yaml, and README.head.md with the instructions
``files/environment.yaml`` what Ray and Serve read when they start (``deployments.cluster``)
``tests/k8s/golden``       each values file, rendered by helm (``make helm``), where there is one
=========================  ======================================================================

In values.yaml a comment ``# -- …`` is the text of the key below it, ``# @schema …`` is JSON laid
over its schema. ``--check`` writes nothing and fails where a file is not what it would be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.rendering import CHART, GOLDEN, ROOT, VALUES, WITHOUT_CONTENTS, helm_binary, rendered

#: Helm's own validators know this one; what differs in the settings' schema is put into its words.
DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_TEXT, _SCHEMA = "# -- ", "# @schema "
_KINDS: Final = {bool: "boolean", int: "integer", str: "string", float: "number"}
Schema = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """A documented key of values.yaml. ``over``: what its comment lays over its schema."""

    path: tuple[str, ...]
    default: Any
    text: str
    over: Schema


def documented(text: str) -> list[Value]:
    """All keys of a values.yaml that have a text. Below such a key nothing is documented.

    Raises:
        ValueError: a key that has no text, and no keys with one below it.
    """
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_below(root, (), yaml.safe_load(text), lines))


def _below(
    node: yaml.MappingNode, path: tuple[str, ...], tree: Any, lines: list[str]
) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, key.value)
        said, over = _comment(lines, key.start_mark.line, value)
        if said:
            yield Value(here, tree[key.value], said, over)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _below(value, here, tree[key.value], lines)
        else:
            raise ValueError(f"values.yaml: {'.'.join(here)} has no text ('# -- …')")


def _comment(lines: list[str], line: int, value: yaml.Node) -> tuple[str, Schema]:
    above: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].strip())
    words: list[str] = []
    over: Schema = {}
    for each in above:
        if each.startswith(_TEXT):
            words = [each.removeprefix(_TEXT)]
        elif each.startswith(_SCHEMA):
            over = json.loads(each.removeprefix(_SCHEMA))
        elif words and not over:
            words.append(each.removeprefix("#").strip())
    return " ".join(words), over


def values_schema(values: list[Value], settings: Schema) -> Schema:
    """``settings``: the schema of the settings tree (draft 2020-12)."""
    root: Schema = _object()
    for value in values:
        at = root
        for key in value.path[:-1]:
            at = at["properties"].setdefault(key, _object())
        at["properties"][value.path[-1]] = _of(value)
    tree = _older(settings)
    root["$defs"] = tree.pop("$defs")
    tree.pop("$schema")
    root["properties"]["settings"] = {
        **tree,
        "description": root["properties"]["settings"]["description"],
    }
    root["properties"]["global"] = {"type": "object"}
    _own_defaults_too(root["properties"]["workers"]["properties"])
    return {"$schema": DIALECT, "title": "Values of weir's chart", **root}


def _object() -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _of(value: Value) -> Schema:
    default = value.default
    if isinstance(default, dict):
        made: Schema = {"type": "object"}
    elif isinstance(default, list):
        made = {"type": "array"}
    else:
        made = {"type": _KINDS[type(default)]}
    return {**made, **value.over, "description": value.text}


def _own_defaults_too(workers: Schema) -> None:
    """What `defaults` may have, pools, accelerators and markets may have too."""
    workers["pools"]["additionalProperties"] = workers["defaults"]
    workers["accelerators"]["additionalProperties"] = workers["defaults"]
    for market in workers["markets"]["properties"]:
        workers["markets"]["properties"][market] = workers["defaults"]


def _older(node: Any) -> Any:
    """In the words of draft 7: tuples, and nothing beside a reference."""
    if isinstance(node, list):
        return [_older(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _older(value) for key, value in node.items() if key != "default"}
    if isinstance(node.get("$ref"), str):
        return {"$ref": node["$ref"]}
    if "prefixItems" in made:
        made["items"] = made.pop("prefixItems")
    return made


def readme(values: list[Value], head: str) -> str:
    """``head`` comes first, then a table of all values."""
    rows = [
        f"| `{'.'.join(each.path)}` | {_shown(each.default)} | {_cell(each.text)} |"
        for each in values
    ]
    table = "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])
    return f"{head.rstrip()}\n\n## Values\n\n{table}\n"


def _shown(default: Any) -> str:
    if default in ("", [], {}):
        return "none"
    text = json.dumps(default) if isinstance(default, dict | list | bool) else str(default)
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def environment() -> str:
    """Variables of all containers in which Ray runs."""
    from deployments.cluster import ENVIRONMENT
    from deployments.front_door import GATEWAY_ENVIRONMENT

    made = yaml.safe_dump(dict(sorted((ENVIRONMENT | GATEWAY_ENVIRONMENT).items())))
    return f"# Written by k8s/generate.py: what Ray and Serve read when they start.\n{made}"


def generated() -> dict[Path, str]:
    """Every file that is written, with its content."""
    from deployments.checking import PARTS
    from weir.settings.schema import settings_schema

    values = documented((CHART / "values.yaml").read_text("utf-8"))
    schema = values_schema(values, settings_schema(PARTS))
    head = (CHART / "README.head.md").read_text("utf-8")
    return {
        CHART / "values.schema.json": json.dumps(schema, indent=1) + "\n",
        CHART / "README.md": readme(values, head),
        CHART / "files" / "environment.yaml": environment(),
    }


def main(argv: list[str] | None = None) -> int:
    """The exit code is 1 where ``--check`` finds a file that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    stale = _write(generated(), check=arguments.check)
    helm = helm_binary()
    if helm is not None:
        stale += _write(golden(helm), check=arguments.check)
    return 1 if arguments.check and stale else 0


def golden(helm: Path) -> dict[Path, str]:
    """Each values file, rendered."""
    return {GOLDEN / f"{name}.yaml": rendered(helm, name, *WITHOUT_CONTENTS) for name in VALUES}


def _write(files: dict[Path, str], *, check: bool) -> list[Path]:
    stale = [
        file
        for file, content in files.items()
        if not file.is_file() or file.read_text("utf-8") != content
    ]
    for file in stale:
        shown = file.relative_to(ROOT)
        if check:
            print(f"{shown} is not up to date: python -m k8s.generate", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(files[file], "utf-8")
            print(f"wrote {shown}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
