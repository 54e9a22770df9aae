"""The gateway's wish to follow a deployment's replicas, handed through Ray Serve.

Apart from the adapter on purpose: Serve pickles the adapter's module by value, so a class defined
there would be another class on the other side, and its instances strangers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from router.types import ReplicaInfo


class Follower(Protocol):
    """Who is told of a deployment's replicas: a router, or its part for one pool."""

    def set_replicas(self, replicas: Iterable[ReplicaInfo]) -> None:
        """All replicas of the deployment, now."""
        ...


@dataclass(frozen=True, slots=True)
class Subscription:
    """``follower`` is kept in step with Serve's replica set for as long as it lives."""

    follower: Follower
