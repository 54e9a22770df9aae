"""docs/configuration.md describes the settings as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pydantic
import yaml

from weir.settings import Settings, parse_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text("utf-8")


def sections(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    """The settings sections inside a field's type: itself, or a tuple's items."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from sections(inner)


def keys(section: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values of a section."""
    for name, field in section.model_fields.items():
        below = list(sections(field.annotation))
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


def test_every_chapter_is_a_section() -> None:
    assert set(chapters()) == set(Settings.model_fields)


def test_the_example_is_valid() -> None:
    match = re.search(r"```yaml file=my.yaml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    tree = yaml.safe_load(match[1])
    assert [model.name for model in parse_settings(tree, "page").models] == ["support", "qwen"]
