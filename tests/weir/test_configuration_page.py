"""docs/configuration.md describes the settings as they are."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pydantic
import pytest
import yaml

from deployments.checking import PARTS
from router.scoring import SCORERS
from weir.settings import Settings, parse_settings
from weir.settings.meanings import meanings
from weir.settings.parts import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")


def sections(annotation: object) -> Iterator[type]:
    """The settings sections inside a field's type: itself, or a tuple's items."""
    if isinstance(annotation, type) and (
        issubclass(annotation, pydantic.BaseModel) or dataclasses.is_dataclass(annotation)
    ):
        yield annotation
    for inner in get_args(annotation):
        yield from sections(inner)


def fields(section: type) -> dict[str, Any]:
    """What a section has, with its types."""
    if issubclass(section, pydantic.BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return {name: kind for name, kind in get_type_hints(section).items() if name != "name"}


def keys(section: type, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values of a section."""
    for name, annotation in fields(section).items():
        below = list(sections(annotation))
        for inner in below:
            yield from keys(inner, f"{prefix}{name}.")
        if not below:
            yield f"{prefix}{name}"


def chapters() -> dict[str, str]:
    found = re.split(r"^## (\S+)$", PAGE, flags=re.MULTILINE)
    return {
        name.removesuffix("[]"): text for name, text in zip(found[1::2], found[2::2], strict=True)
    }


def test_every_key_is_described_in_its_chapter() -> None:
    pages = chapters()
    missing = [
        f"{chapter}: {key}"
        for chapter, field in Settings.model_fields.items()
        for section in sections(field.annotation)
        for key in keys(section)
        if f"`{key}`" not in pages.get(chapter, "")
    ]
    assert missing == [], "describe them in docs/configuration.md"


@pytest.mark.parametrize(
    ("registry", "prefix"),
    [
        (PARTS.policies, "models."),
        (PARTS.rules, "models."),
        (PARTS.limits, "admission.limits."),
        (SCORERS, "models.weighted.scorers."),
        (PARTS.autoscaling, "autoscaling."),
    ],
)
def test_every_parameter_is_described(registry: Registry[Any], prefix: str) -> None:
    meant = meanings()
    missing = [
        f"{prefix}{name}.{field.name}"
        for name in registry.names()
        for field in dataclasses.fields(registry.params(name))
        if f"{prefix}{name}.{field.name}" not in meant
    ]
    assert missing == [], "describe them in docs/configuration.md"


def test_nothing_is_described_that_there_is_not() -> None:
    known = {
        f"{chapter}.{key}"
        for chapter, field in Settings.model_fields.items()
        for section in sections(field.annotation)
        for key in keys(section)
    }
    parts = {
        f"{prefix}{name}.{field.name}"
        for registry, prefix in (
            (PARTS.policies, "models."),
            (PARTS.rules, "models."),
            (PARTS.limits, "admission.limits."),
            (SCORERS, "models.weighted.scorers."),
            (PARTS.autoscaling, "autoscaling."),
        )
        for name in registry.names()
        for field in dataclasses.fields(registry.params(name))
    }
    strange = {
        path
        for path in meanings()
        if not any(each == path or each.startswith(f"{path}.") for each in known | parts)
    }
    assert strange == set()


def test_the_wheel_carries_the_page() -> None:
    """Where :mod:`weir.settings.meanings` looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried["docs/configuration.md"] == "weir/settings/configuration.md"


def test_every_chapter_is_a_section() -> None:
    assert set(chapters()) == set(Settings.model_fields)


def test_the_example_is_valid() -> None:
    match = re.search(r"```yaml file=my.yaml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    tree = yaml.safe_load(match[1])
    assert [model.name for model in parse_settings(tree, "page").models] == ["support", "qwen"]
