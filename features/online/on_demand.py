"""Features that are computed when an entity is read, as Feast's on-demand feature views are.

The function is the one that the view is made of in Feast's mode ``python`` with ``singleton=True``:
a mapping of feature values in, a mapping of the computed ones out. Feast itself is not needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from features.online.values import TYPES, FeatureValue

Function = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ComputedFeature:
    """One feature that a function returns: its type, and what stands in for it."""

    name: str
    type: str = "string"
    default: FeatureValue = None


@dataclass(frozen=True, slots=True)
class Transformation:
    """A function, and the features that it returns."""

    function: Function
    features: tuple[ComputedFeature, ...]

    def apply(self, values: Mapping[str, FeatureValue]) -> dict[str, FeatureValue]:
        """The computed features of a row; those that are missing or of another type than declared
        are left out, all of them if the function fails. None is a null, and kept."""
        try:
            made = self.function(dict(values))
            return {
                each.name: made[each.name]
                for each in self.features
                if each.name in made
                and (made[each.name] is None or TYPES[each.type](made[each.name]))
            }
        except Exception:  # noqa: BLE001 - the operator's own code, which may raise anything
            return {}


def import_function(path: str) -> Function:
    """The function at ``package.module:name``.

    Raises:
        ValueError: there is no such module, or nothing in it that can be called by that name.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not callable(found):
        raise ValueError(f"{path} is no function")
    function: Function = found
    return function
