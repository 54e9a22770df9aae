"""`weir config schema`: good files pass, bad ones do not, and every key says what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from deployments.checking import PARTS
from tests.docs.blocks import CHECKED, all_blocks
from weir.cli.main import app
from weir.settings import profile_names
from weir.settings.load import read_profile
from weir.settings.schema import settings_schema

YAML = [block for block in all_blocks() if block.language in CHECKED and block.no_run is None]


@cache
def schema() -> dict[str, Any]:
    return settings_schema(PARTS)


def paths(tree: Any) -> set[str]:
    """Where the schema refuses something."""
    errors = Draft202012Validator(schema()).iter_errors(tree)
    return {".".join(map(str, error.absolute_path)) for error in errors}


def model(**more: Any) -> dict[str, Any]:
    return {"models": [{"name": "m", "source": "builtin:teacher", **more}]}


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["config", "schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == json.loads(json.dumps(schema()))


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    assert schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_passes(name: str) -> None:
    assert paths(read_profile(name)) == set()


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_every_example_of_the_documents_passes(block: Any) -> None:
    assert paths(yaml.safe_load(block.text)) == set()


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"admission": {"limits": {"kv": None, "prefill": {"tokens": 1}}}},
        {"admission": {"classes": {"gold": {"urgency": 0, "share": {"kv": 0.5}}}}},
        model(routing={"params": {"overlap_weight": 2}}),
        model(routing={"policy": "random", "params": {}}),
        model(routing={"policy": "weighted", "params": {"scorers": {"decode-load": 2}}}),
        model(routing={"disaggregation": {"rule": "llm-d", "params": {"uncached_tokens": 1}}}),
    ],
)
def test_good_files_pass(tree: dict[str, Any]) -> None:
    assert paths(tree) == set()


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"servr": {}}, ""),
        ({"server": {"port": 99999}}, "server.port"),
        ({"server": {"prot": 1}}, "server"),
        ({"models": [{"name": "m"}]}, "models.0"),
        ({"admission": {"nonsense": 1}}, "admission"),
        ({"admission": {"classes": {"a": {}}}}, "admission.classes.a"),
        ({"admission": {"classes": {"a": {"urgency": 0, "name": "a"}}}}, "admission.classes.a"),
        ({"admission": {"limits": {"kvv": {}}}}, "admission.limits"),
        ({"admission": {"limits": {"kv": {"fill": 2}}}}, "admission.limits.kv"),
        (model(routing={"policy": "nope"}), "models.0.routing.policy"),
        (model(routing={"params": {"choices": 2}}), "models.0.routing.params"),
        (
            model(routing={"policy": "power-of-two", "params": {"overlap_weight": 1}}),
            "models.0.routing.params",
        ),
        (
            model(routing={"policy": "weighted", "params": {"scorers": {"best": 1}}}),
            "models.0.routing.params.scorers",
        ),
        (
            model(routing={"disaggregation": {"params": {"uncached_tokens": 1}}}),
            "models.0.routing.disaggregation.params",
        ),
        (model(fallback={}), "models.0.fallback"),
    ],
)
def test_bad_files_do_not(tree: dict[str, Any], path: str) -> None:
    found = paths(tree)
    assert found
    assert all(each == path or each.startswith(path) for each in found), found


def keys(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the schema, with what is said of it."""
    if isinstance(node, list):
        for inner in node:
            yield from keys(inner, path)
    if not isinstance(node, dict):
        return
    for name, said in node.get("properties", {}).items():
        if "const" not in said:  # a condition of a policy's parameters
            yield f"{path}.{name}", said
    for name, inner in node.items():
        if name not in ("default", "enum", "if", "then"):
            yield from keys(inner, path if name in ("properties", "$defs") else f"{path}.{name}")


def test_every_key_says_what_it_means() -> None:
    whole = schema()
    silent = []
    for path, said in keys(whole):
        below = json.dumps(said)
        meant = "description" in said or "#/$defs/" in below or '"properties"' in below
        if not meant:
            silent.append(path)
    assert silent == [], "docs/configuration.md has no row for them"
    assert sum(1 for _ in keys(whole)) > 250


def test_units_are_said_where_a_number_stands() -> None:
    server = schema()["$defs"]["ServerSettings"]["properties"]
    assert server["request_timeout_s"]["description"].startswith("longest request")
    limit = schema()["$defs"]["admission-limit-prefill"]["properties"]["tokens"]
    assert (limit["minimum"], limit["default"]) == (1, 4096)
    assert limit["description"] == "prompt tokens that a replica may have outstanding"
