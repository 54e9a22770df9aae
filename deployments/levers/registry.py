"""The levers by name, and what trying one tells."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.levers.engine import Bench

_MODULES = ("scheduling", "caching", "speculation", "quantized", "grammars", "pools")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``works``: the engine took it and it did what it is for. ``equal``: share of the answers that
    are token for token those without the lever (None: there are none to compare). ``gain``: a
    ratio, above 1 where the lever helps, of ``gain_of``."""

    works: bool
    equal: float | None = None
    gain: float | None = None
    gain_of: str = ""
    note: str = ""


Try = Callable[["Bench"], Outcome]


@dataclass(frozen=True, slots=True)
class Lever:
    """``arguments``: what an operator writes into ``engine.args`` (or another setting) for it."""

    name: str
    arguments: str
    run: Try


_LEVERS: dict[str, Lever] = {}


def lever(name: str, arguments: str) -> Callable[[Try], Try]:
    """Register a lever; its function's docstring says what is measured.

    Raises:
        ValueError: the name is taken.
    """

    def register(run: Try) -> Try:
        if name in _LEVERS:
            raise ValueError(f"there are two levers called {name!r}")
        _LEVERS[name] = Lever(name, arguments, run)
        return run

    return register


def levers() -> dict[str, Lever]:
    """All of them, in the order in which they are tried. Imports no engine."""
    for module in _MODULES:
        importlib.import_module(f"deployments.levers.{module}")
    return dict(_LEVERS)
