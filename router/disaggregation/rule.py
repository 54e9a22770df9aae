"""The registry of disaggregation rules: one file, one decorator, one frozen params class each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from router.disaggregation.ways import Way, Ways
from weir.settings.parts import Registry


class Rule(Protocol):
    """A pure choice between the ways that a request can go."""

    #: Whether it also makes pairs where every replica is mixed. (Where some replica has a role, it
    #: is always asked.)
    pairs_of_mixed: bool

    def choose(self, ways: Ways) -> Way | None:
        """One of them; None: the request waits until another way has room."""
        ...


_F = TypeVar("_F", bound=Callable[..., Rule])
RULES: Registry[Rule] = Registry("disaggregation rule", "routing.disaggregation.rule")


def register(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a rule known by its config name. A name is taken only once."""
    return RULES.register(name, params)


def rule_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return RULES.names()


def build_rule(name: str, params: Mapping[str, Any] | None = None) -> Rule:
    """Build a registered rule; an unknown name or parameter is a :class:`ConfigError`."""
    return RULES.build(name, params)
