"""Limits on what a replica is given, as registered rules: one file each in
:mod:`router.admission.limits`, one frozen params class, one decorator with the config name.

A rule is pure: it reads the request, the share and one :class:`~router.view.View`, and keeps
nothing. ``admission.limits`` composes them: all registered ones are in force with their default
parameters, in the order of :data:`ORDER`, unless settings change or remove them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from router.types import RouteRequest
from router.view import View
from weir.errors import ConfigError
from weir.settings.admission import Share
from weir.settings.parts import Registry


class Standing(NamedTuple):
    """Where a request's class and tenant stand.

    ``class_share``: what the class is configured to fill; ``most_urgent``: no class is more urgent.
    ``urgent_idle_s``: how long ago a more urgent class last had a request dispatched (0: it has one
    in flight; infinite: never). In flight: requests of the tenant (of weight ``tenant_weight``), of
    the class, and the tenants that have any.
    """

    class_share: Share
    most_urgent: bool
    urgent_idle_s: float
    tenant_weight: float
    tenant_in_flight: int
    class_in_flight: int
    class_tenants: int


class Limit:
    """A rule. Each method has a neutral default; a rule overrides what it is about:
    :meth:`share`, or :meth:`room_everywhere`, :meth:`room_on` and :meth:`with_room`."""

    def share(self, standing: Standing) -> Share | None:
        """How far such a request may fill a replica (None: this rule does not narrow it)."""
        return None

    def room_everywhere(self, request: RouteRequest, share: Share, view: View) -> bool:
        """A quick look: True only if :meth:`with_room` would leave nobody out."""
        return True

    def room_on(self, request: RouteRequest, share: Share, view: View, slot: int) -> bool:
        """A quick look at one candidate with requests in flight: True only if :meth:`with_room`
        would not leave it out, whoever else is asked about."""
        return self.room_everywhere(request, share, view)

    def with_room(
        self, request: RouteRequest, share: Share, view: View, busy: list[int]
    ) -> list[int]:
        """Those of ``busy`` (slots of candidates with requests in flight) that have room. A
        replica without any request has room for anything, so that none idles while one waits."""
        return busy

    def holds_back(self, request: RouteRequest, share: Share, view: View) -> bool:
        """When no replica has room: whether this rule is the reason, and another request may have
        room all the same."""
        return False


_F = TypeVar("_F", bound=Callable[..., Limit])
LIMITS: Registry[Limit] = Registry("admission limit", "admission.limits")

#: In which order they are asked: what costs least, and keeps most out, first.
ORDER = ("head-room", "heavy-tenant", "places", "prefill", "kv", "working-set")


def register(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a limit known by its config name. A name is taken only once."""
    return LIMITS.register(name, params)


def limit_names() -> tuple[str, ...]:
    """All registered names, in the order in which they are asked."""
    known = LIMITS.names()
    return tuple(sorted(known, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def build_limits(given: Mapping[str, Mapping[str, Any] | None]) -> tuple[Limit, ...]:
    """Every registered limit, with the parameters given for it; None takes one out.

    Raises:
        ConfigError: unknown limit, unknown parameter, or an impossible value.
    """
    for name in given:
        if (message := LIMITS.unknown(name)) is not None:
            raise ConfigError(f"admission.limits: {message}")
    wanted = (name for name in limit_names() if given.get(name, {}) is not None)
    return tuple(LIMITS.build(name, given.get(name)) for name in wanted)


def narrowing(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Those that have anything to say about shares."""
    return tuple(limit for limit in limits if type(limit).share is not Limit.share)


def bounding(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Those that ever leave a replica out."""
    return tuple(limit for limit in limits if type(limit).with_room is not Limit.with_room)


def narrowest(limits: Sequence[Limit], standing: Standing, share: Share) -> Share:
    """``share``, narrowed by every limit that has something to say."""
    for limit in limits:
        found = limit.share(standing)
        if found is not None:
            share = share.narrowed(found)
    return share
