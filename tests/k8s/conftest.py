"""The chart, rendered once for each values file, and the real definitions of custom resources."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from k8s.rendering import ROOT, VALUES, helm_binary, objects, rendered

Objects = list[dict[str, Any]]
#: Definitions of custom resources and a stand-in for Kubernetes' API, beside the checkout.
SHARED = ROOT.parent / "shared" / "kubernetes"


@pytest.fixture(scope="session")
def helm() -> Path:
    """helm's command line."""
    binary = helm_binary()
    if binary is None:
        pytest.skip("helm is not here: make helm")
    return binary


@cache
def _rendered(helm: Path, name: str) -> str:
    return rendered(helm, name)


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest) -> str:
    """The name of each values file in turn."""
    return str(request.param)


@pytest.fixture
def text(helm: Path, values: str) -> str:
    """A values file, rendered."""
    return _rendered(helm, values)


@pytest.fixture
def made(text: str) -> Objects:
    """The objects that a values file comes to."""
    return objects(text)


@pytest.fixture(scope="session")
def objects_of(helm: Path) -> Callable[[str], Objects]:
    """By the name of a values file."""
    return lambda name: objects(_rendered(helm, name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with what this repository does not carry."""
    if not (SHARED / "crds.tgz").is_file():
        pytest.skip(f"the definitions of custom resources are not here: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def crds(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the definitions, as YAML."""
    folder = tmp_path_factory.mktemp("crds")
    with tarfile.open(shared / "crds.tgz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "crds"


@pytest.fixture(scope="session")
def crdval(shared: Path) -> Iterator[ModuleType]:
    """The module that turns definitions into strict schemas."""
    spec = importlib.util.spec_from_file_location("crdval", shared / "crdval.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["crdval"] = module
    yield module
    del sys.modules["crdval"]


def pod_specs(made: Objects) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every pod that the objects lead to: where it is, its labels, its spec."""
    for each in made:
        where = f"{each['kind']}/{each['metadata']['name']}"
        spec = each.get("spec", {})
        match each["kind"]:
            case "Pod":
                yield where, each["metadata"]["labels"], spec
            case "Deployment" | "StatefulSet" | "Job":
                yield from _template(where, spec["template"])
            case "CronJob":
                yield from _template(where, spec["jobTemplate"]["spec"]["template"])
            case "RayService":
                cluster = spec["rayClusterConfig"]
                yield from _template(f"{where}/head", cluster["headGroupSpec"]["template"])
                for group in cluster["workerGroupSpecs"]:
                    yield from _template(f"{where}/{group['groupName']}", group["template"])


def _template(
    where: str, template: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    yield where, template["metadata"]["labels"], template["spec"]


def of_kind(made: Objects, kind: str) -> Objects:
    """The objects of a kind."""
    return [each for each in made if each["kind"] == kind]


def as_json(value: Any) -> str:
    """For searching in."""
    return json.dumps(value)
