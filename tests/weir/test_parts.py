"""Registered parts: names once, parameters by their annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import Field

from weir.errors import ConfigError
from weir.settings.parts import Registry, chosen, named


@dataclass(frozen=True, slots=True)
class Sized:
    width: Annotated[int, Field(ge=1)] = 1
    height: Annotated[float, Field(gt=0)] = 2.0

    def __post_init__(self) -> None:
        if self.height < self.width:
            raise ValueError("height must be at least width")


def boxes() -> Registry[Any]:
    registry: Registry[Any] = Registry("box", "boxes.kind")
    registry.register("plain", Sized)(lambda params: ("plain", params))
    registry.register("round", Sized)(lambda params: ("round", params))
    return registry


def test_a_part_is_built_from_what_is_given() -> None:
    assert boxes().build("plain", {"width": 2}) == ("plain", Sized(2, 2.0))
    assert boxes().build("round") == ("round", Sized())


def test_a_name_is_taken_once_and_params_are_a_dataclass() -> None:
    registry = boxes()
    with pytest.raises(ValueError, match="box 'plain' is registered twice"):
        registry.register("plain", Sized)(lambda params: params)
    with pytest.raises(TypeError, match="params of box 'odd' must be a dataclass"):
        registry.register("odd", dict)(lambda params: params)


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ({}, set()),
        ({"widht": 1, "height": 0}, {("widht",), ("height",)}),
        ({"width": "wide"}, {("width",)}),
        ({"width": 3}, {()}),
    ],
)
def test_each_parameter_is_judged_at_its_place(
    given: dict[str, Any], places: set[tuple[str, ...]]
) -> None:
    assert {finding.place for finding in boxes().findings("plain", given)} == places


def test_what_is_misspelt_is_answered_with_the_nearest() -> None:
    [key] = boxes().findings("plain", {"widht": 1})
    assert key.message == "unknown key; did you mean 'width'? plain takes height, width"
    with pytest.raises(
        ConfigError, match=r"boxes.kind: unknown box 'plane'; did you mean 'plain'\? Known"
    ):
        boxes().build("plane")
    with pytest.raises(ConfigError, match=r"boxes.kind plain.width: .* 1 .*plain.height: .* 0"):
        boxes().build("plain", {"height": 0, "width": 0})


def test_a_section_that_names_one_part_and_one_that_names_many() -> None:
    registry = boxes()
    assert [f.place for f in chosen(registry, "plane", {"x": 1}, "kind")] == [("kind",)]
    assert [f.place for f in chosen(registry, "plain", {"x": 1}, "kind")] == [("params", "x")]
    many = {"plain": {"width": 0}, "round": None, "flat": {}}
    assert [f.place for f in named(registry, many)] == [("plain", "width"), ("flat",)]
