"""What is generated is up to date, and the schema of the values says what the chart takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from k8s.generate import CHART, documented, generated, golden
from k8s.rendering import ROOT, VALUES, template, values_file


@pytest.mark.parametrize("file", sorted(generated()), ids=lambda file: file.name)
def test_generated_files_are_up_to_date(file: Path) -> None:
    said = "write it again: python -m k8s.generate"
    assert file.read_text("utf-8") == generated()[file], said


def test_the_chart_renders_as_it_did(helm: Path) -> None:
    """Look at the differences, then: python -m k8s.generate"""
    for file, content in golden(helm).items():
        assert content == file.read_text("utf-8"), f"{file.name} has changed"


def test_every_key_has_a_text() -> None:
    assert all(each.text.endswith(".") for each in values()), [
        ".".join(each.path) for each in values() if not each.text.endswith(".")
    ]


def test_a_key_without_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.c has no text"):
        documented("a:\n  # -- Text.\n  b: 1\n  c: 2\n")


def test_texts_go_on_over_lines_and_schemas_are_laid_over() -> None:
    (value,) = documented('# -- One\n# text.\n# @schema {"minimum": 1}\na: 2\n')
    assert (value.path, value.default, value.text) == (("a",), 2, "One text.")
    assert value.over == {"minimum": 1}


def values() -> list[Any]:
    return documented((CHART / "values.yaml").read_text("utf-8"))


def schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text("utf-8")))


def refused(tree: Any) -> set[str]:
    errors = Draft7Validator(schema()).iter_errors(tree)
    return {".".join(map(str, each.absolute_path)) for each in errors}


MODEL = {"models": [{"name": "m", "source": "builtin:teacher"}]}


@pytest.mark.parametrize("name", VALUES)
def test_the_values_files_fit_the_schema(name: str) -> None:
    assert refused(yaml.safe_load(values_file(name).read_text("utf-8"))) == set()


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"settings": MODEL | {"modles": []}}, "settings"),
        ({"settings": MODEL | {"server": {"drain_timeout_s": -1}}},
         "settings.server.drain_timeout_s"),
        ({"settings": {"models": [{**MODEL["models"][0], "routing": {"policy": "wier"}}]}},
         "settings.models.0.routing.policy"),
        ({"image": {"tga": "1"}}, "image"),
        ({"gateways": {"groups": [{"name": "Main", "replicas": 1}]}}, "gateways.groups.0.name"),
        ({"gateways": {"groups": []}}, "gateways.groups"),
        ({"workers": {"pools": {"m": {"gpuPerPod": 1}}}}, "workers.pools.m"),
        ({"workers": {"markets": {"spto": {}}}}, "workers.markets"),
        ({"redis": {"mode": "embedded"}}, "redis.mode"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_with_their_place(tree: dict[str, Any], where: str) -> None:
    assert refused(tree) == {where}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "settings.models is required"),
        (("--set", "settings.modles=1"), "modles"),
        (("--set", "settings.models[0].name=m,settings.models[0].source=builtin:teacher,"
          "workers.pools.other.sharedMemory=1Gi"), "other is no pool of settings.models"),
        (("--set", "settings.models[0].name=m,settings.models[0].source=x,redis.mode=external"),
         "redis.external.host is needed"),
        (("--set", f"settings.models[0].name={'m' * 64},settings.models[0].source=x"),
         "too long for a node label"),
    ],
    ids=["nothing", "unknown", "pool", "redis", "long"],
)  # fmt: skip
def test_helm_refuses_what_cannot_be(helm: Path, arguments: tuple[str, ...], said: str) -> None:
    done = template(helm, *arguments)
    assert done.returncode
    assert said in done.stderr


def test_no_figure_of_the_readme_is_of_another_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{chart["appVersion"]}"' in project
    assert f"weir:{chart['appVersion']}" in (CHART / "README.md").read_text("utf-8")
