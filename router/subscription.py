"""The gateway's wish to follow a deployment's replicas, handed through Ray Serve.

Apart from the adapter on purpose: Serve pickles the adapter's module by value, so a class defined
there would be another class on the other side, and its instances strangers.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.router import Router


@dataclass(frozen=True, slots=True)
class Subscription:
    """``router`` is kept in step with Serve's replica set for as long as it lives."""

    router: Router
