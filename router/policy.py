"""The registry of routing policies: one file, one decorator, one frozen params class each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from router.snapshot import Snapshot
from router.types import Decision, RouteRequest
from weir.settings.parts import Registry


class Policy(Protocol):
    """A pure choice: same request, snapshot and random state give the same decision."""

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        """Pick one of the snapshot's candidates (never empty)."""
        ...


PolicyFactory = Callable[..., Policy]
_F = TypeVar("_F", bound=PolicyFactory)
POLICIES: Registry[Policy] = Registry("routing policy", "routing.policy")


def register(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a policy known by its config name. A name is taken only once."""
    return POLICIES.register(name, params)


def policy_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return POLICIES.names()


def build_policy(name: str, params: Mapping[str, Any] | None = None) -> Policy:
    """Build a registered policy; an unknown name or parameter is a :class:`ConfigError`."""
    return POLICIES.build(name, params)
