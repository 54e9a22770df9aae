"""One question to the router, handed through Ray Serve.

Apart from the adapter on purpose: Serve pickles the adapter's module by value, so a class defined
there would be another class on the other side, and its instances strangers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from router.ledger import Reservation
from router.router import Router
from router.types import RouteRequest


@dataclass(slots=True)
class RoutingCall:
    """A question and, once decided, its answer.

    Without ``request`` it only brings ``router`` up to date with Serve's replica set.
    """

    router: Router
    request: RouteRequest | None = None
    exclude: Collection[str] = ()
    reservation: Reservation | None = field(default=None, init=False)
