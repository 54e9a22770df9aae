"""The registry of routing policies: one file, one decorator, one frozen params class each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar

from router.types import Decision, RouteRequest, Snapshot
from weir.errors import ConfigError


class Policy(Protocol):
    """A pure choice: same request, snapshot and random state give the same decision."""

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        """Pick one of ``snapshot.replicas`` (never empty)."""
        ...


PolicyFactory = Callable[..., Policy]
_F = TypeVar("_F", bound=PolicyFactory)
_REGISTRY: dict[str, tuple[PolicyFactory, type]] = {}


def register(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a policy known by its config name. A name is taken only once."""

    def add(factory: _F) -> _F:
        if name in _REGISTRY:
            raise ValueError(f"routing policy {name!r} is registered twice")
        if not is_dataclass(params):
            raise TypeError(f"params of routing policy {name!r} must be a dataclass")
        _REGISTRY[name] = (factory, params)
        return factory

    return add


def policy_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(_REGISTRY))


def build_policy(name: str, params: Mapping[str, Any] | None = None) -> Policy:
    """Build a registered policy; an unknown name or parameter is a :class:`ConfigError`."""
    try:
        factory, params_type = _REGISTRY[name]
    except KeyError:
        known = ", ".join(policy_names())
        raise ConfigError(f"routing.policy: unknown policy {name!r}; known: {known}") from None
    given = dict(params or {})
    known_fields = {f.name for f in fields(params_type)}
    for key in given:
        if key not in known_fields:
            expected = ", ".join(sorted(known_fields)) or "no parameters"
            raise ConfigError(f"routing.params.{key}: unknown; {name} takes {expected}")
    return factory(params_type(**given))
