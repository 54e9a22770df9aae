"""Which replicas have room: the pure side of late binding.

A request stays in the gateway's queue until some replica has room for it, because a queue inside
a replica can be neither reordered nor moved. Room is what all limits in force
(:mod:`router.admission.limits`) leave. A replica with no request has room for anything, so no
replica idles while something waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from router.admission.limit import Limit
from router.types import RouteRequest
from router.view import View
from weir.settings.admission import Share

_NONE: frozenset[str] = frozenset()
#: The slot of the candidate that the policy would choose, if none were left out.
Prefer = Callable[[RouteRequest, View], int]


class Capacity(Protocol):
    """What :meth:`AdmissionQueue.next` asks."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        """Ids of the replicas without room for ``request``; None when none has room."""
        ...

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        """When none has room: whether a limit is the reason that does not concern others, so that
        another request may have room all the same."""
        ...


class Unlimited:
    """Room for everything, everywhere: admission switched off."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return _NONE

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class Room:
    """Room as one view shows it, by the given limits. O(replicas) per limit and question."""

    __slots__ = ("_limits", "_prefer", "_view", "preferred_is_full")

    def __init__(self, view: View, limits: Sequence[Limit], prefer: Prefer | None = None) -> None:
        """``prefer``: for a policy that compares candidates, whom it would choose of all of them.
        While nothing waits that one mostly has room, and then nobody else has to be looked at:
        leaving out others would not change the choice."""
        self._view = view
        self._limits = limits
        self._prefer = prefer
        #: Whether ``prefer`` was asked, and told of one that has no room.
        self.preferred_is_full = False

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        view = self._view
        columns = view.columns
        if not columns.fleet.ids:
            return None
        if self._prefer is not None:
            if self._has_room(request, share, self._prefer(request, view)):
                return _NONE
            self.preferred_is_full = True
        # Mostly everybody has room, and the fullest replica tells that of all.
        limits = [it for it in self._limits if not it.room_everywhere(request, share, view)]
        if not limits:
            return _NONE
        busy = [slot for slot, requests in enumerate(columns.requests) if requests]
        room = busy
        for limit in limits:
            if not room:
                break
            room = limit.with_room(request, share, view, room)
        if len(room) == len(busy):
            return _NONE
        if not room and len(busy) == len(columns.fleet.ids):
            return None
        ids, free = columns.fleet.ids, {*room}
        return frozenset(ids[slot] for slot in busy if slot not in free)

    def _has_room(self, request: RouteRequest, share: Share, slot: int) -> bool:
        view = self._view
        if not view.columns.requests[slot]:
            return True
        for limit in self._limits:  # noqa: SIM110 - a generator costs as much as the looks
            if not limit.room_on(request, share, view, slot):
                return False
        return True

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return any(limit.holds_back(request, share, self._view) for limit in self._limits)
