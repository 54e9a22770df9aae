"""Every object is one that Kubernetes, and the operators, would take."""

from __future__ import annotations

import copy
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import celpy
import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from k8s.rendering import CHART, KUBERNETES, values_file
from tests.k8s.conftest import Objects

Definitions = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def definitions(crdval: ModuleType, crds: Path) -> Definitions:
    """Validators of custom resources, by version and kind."""
    found = {}
    for file in crds.glob("*.yaml"):
        for each in yaml.load_all(file.read_text("utf-8"), Loader=yaml.CSafeLoader):
            names, group = each["spec"]["names"], each["spec"]["group"]
            for version in each["spec"]["versions"]:
                raw = version["schema"]["openAPIV3Schema"]
                strict = crdval.conv(raw)
                strict["properties"]["metadata"] = {"type": "object"}
                key = (f"{group}/{version['name']}", names["kind"])
                found[key] = (Draft202012Validator(strict), raw)
    return found


@cache
def program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def faults(each: dict[str, Any], definitions: Definitions, crdval: ModuleType) -> list[str]:
    """What the definition of a custom resource has against an object."""
    validator, raw = definitions[each["apiVersion"], each["kind"]]
    whole = copy.deepcopy(each)
    crdval.defaults(raw, whole)
    found = [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(whole)
    ]

    def rule(said: dict[str, Any], value: Any, path: list[Any]) -> None:
        if not program(said["rule"]).evaluate({"self": celpy.json_to_cel(value)}):
            found.append(f"{'/'.join(map(str, path))}: {said.get('message') or said['rule']}")

    if not found:
        crdval.walk_cel(raw, whole, [], rule)
    return found


def test_the_chart_is_linted(helm: Path, values: str) -> None:
    command = [str(helm), "lint", "--strict", str(CHART), "--values", str(values_file(values))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kinds_of_kubernetes_are_strictly_valid(made: Objects) -> None:
    checked = 0
    for each in made:
        if "." in each["apiVersion"] and not each["apiVersion"].split("/")[0].endswith(".k8s.io"):
            continue
        try:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            continue  # the gateway API: below
        checked += 1
    assert checked > 15


def test_custom_resources_fit_their_definitions(
    made: Objects, definitions: Definitions, crdval: ModuleType
) -> None:
    custom = [each for each in made if (each["apiVersion"], each["kind"]) in definitions]
    assert "RayService" in {each["kind"] for each in custom}
    for each in custom:
        assert faults(each, definitions, crdval) == [], each["kind"]


def test_no_object_is_left_unchecked(made: Objects, definitions: Definitions) -> None:
    for each in made:
        if (each["apiVersion"], each["kind"]) not in definitions:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"upgradeStrategy": {"type": "NewCluster", "typo": 1}}, "typo"),
        ({"rayClusterConfig": {"rayVersion": "1"}}, "headGroupSpec"),
    ],
)
def test_a_wrong_object_is_found(
    objects_of: Any, definitions: Definitions, crdval: ModuleType, change: Any, said: str
) -> None:
    (service,) = [each for each in objects_of("laptop") if each["kind"] == "RayService"]
    wrong = {**service, "spec": {**service["spec"], **change}}
    assert any(said in each for each in faults(wrong, definitions, crdval))


def test_a_rule_in_cel_is_run(
    objects_of: Any, definitions: Definitions, crdval: ModuleType
) -> None:
    (route,) = [each for each in objects_of("regions") if each["kind"] == "HTTPRoute"]
    wrong = copy.deepcopy(route)
    wrong["spec"]["rules"][0]["timeouts"] = {"request": "1s", "backendRequest": "2s"}
    assert any("backendRequest" in each for each in faults(wrong, definitions, crdval))
