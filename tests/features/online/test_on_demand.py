"""Features computed from what was read; what a function does wrong costs its own features only."""

from __future__ import annotations

from typing import Any

import pytest

from features.online import FeatureSpec, ServicePlan, ServiceSpec, ViewSpec
from features.online.on_demand import ComputedFeature, Transformation, import_function
from features.online.service import FeatureRow

STORED = [b"\x08\x01", b"\x12\x03Ada"]
"""Event time 1 s after the epoch; the text "Ada"."""


def row(function: Any, reply: list[bytes | None] = STORED) -> FeatureRow:
    made = (ComputedFeature("length", "int", -1), ComputedFeature("upper"))
    views = (ViewSpec("v", (FeatureSpec("name"),)),)
    plan = ServicePlan(ServiceSpec("s", views, None, (Transformation(function, made),)))
    return plan.read(reply, 2.0)


def good(values: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(values["name"]), "upper": values["name"].upper()}


def test_what_is_computed_stands_beside_what_was_read() -> None:
    found = row(good)
    assert found.outcome == "hit"
    assert found.values == {"name": "Ada", "length": 3, "upper": "ADA"}


@pytest.mark.parametrize(
    "function",
    [
        lambda values: 1 / 0,
        lambda values: None,
        lambda values: {},
        lambda values: {"length": "3", "upper": 7},
        lambda values: {"length": True},
    ],
)
def test_what_is_not_computed_has_its_default(function: Any) -> None:
    found = row(function)
    assert found.outcome == "partial"
    assert found.values == {"name": "Ada", "length": -1, "upper": None}
    assert found.reasons == {"length": "not_computed", "upper": "not_computed"}


def test_a_null_is_a_null() -> None:
    found = row(lambda values: {"length": 1, "upper": None})
    assert (found.outcome, found.reasons) == ("hit", {"upper": "null"})


def test_of_an_entity_that_is_missing_nothing_is_computed() -> None:
    found = row(lambda values: pytest.fail("called"), [None, None])
    assert found.outcome == "missing"
    assert set(found.reasons.values()) == {"missing"}


def test_a_function_cannot_change_what_was_read() -> None:
    def clearing(values: dict[str, Any]) -> dict[str, Any]:
        values.clear()
        return {"length": 1, "upper": "x"}

    assert row(clearing).values["name"] == "Ada"


@pytest.mark.parametrize("path", ["nowhere:f", "os:nothing", "os:sep"])
def test_no_function_is_told(path: str) -> None:
    with pytest.raises(ValueError, match=path):
        import_function(path)
