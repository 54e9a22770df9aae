"""What can be said of the Containerfiles without a builder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from k8s.rendering import CHART, ROOT

FILES = sorted((ROOT / "k8s" / "containers").glob("Containerfile.*"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments; lines that go on are one."""
    text = re.sub(r"\\\n\s*", " ", file.read_text("utf-8"))
    lines = (line.strip() for line in text.splitlines())
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in pairs]


@pytest.fixture(params=FILES, ids=lambda file: file.suffix[1:])
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_is_one_for_cpus_and_one_for_gpus() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".gpu"]


def test_the_base_is_pinned(file: Path) -> None:
    (base,) = [rest for name, rest in instructions(file) if name == "ARG" and "BASE" in rest]
    assert re.search(r":\d+\.\d+\.\d+-", base)
    python = re.search(r"python:(\d+\.\d+)", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert python is not None
    assert project["project"]["requires-python"] == f">={python[1]}"


def test_it_runs_as_the_user_of_the_chart(file: Path) -> None:
    users = [rest for name, rest in instructions(file) if name == "USER"]
    assert users == ["10001:10001"]
    assert "\nrunAsUser: 10001\n" in (CHART / "values.yaml").read_text("utf-8")


def test_all_that_is_copied_is_there_and_the_last_stage_gets_no_sources(file: Path) -> None:
    copied = [rest.split() for name, rest in instructions(file) if name == "COPY"]
    *sources, last = copied
    for each in sources:
        for path in each[:-1]:
            assert (ROOT / path).exists(), path
    assert last == ["--from=build", "/opt/weir", "/opt/weir"]


def test_the_wheel_has_all_packages_that_it_is_built_from(file: Path) -> None:
    """What pyproject.toml packs is what is copied."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {each.split("/")[0] for each in wheel["packages"]}
    needed = wanted | set(wheel["force-include"])
    copied = {
        path for name, rest in instructions(file) if name == "COPY" for path in rest.split()[:-1]
    }
    assert needed <= copied, needed - copied
