"""Room where replicas have roles: a request may begin when the way that its rule wants has room."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from router.admission.capacity import Room
from router.admission.limit import Limit
from router.types import Decision, RouteRequest
from router.view import View
from weir.settings.admission import Share

Place = Callable[[RouteRequest, View, Collection[str]], Decision | None]


class PlacedRoom(Room):
    """Limits say which replicas get no more prompts; ``place`` says whether anything is left of
    what the rule wants. The answering side of a pair needs a place and KV, no room for prompts."""

    __slots__ = ("_place",)

    def __init__(self, view: View, limits: Sequence[Limit], place: Place) -> None:
        super().__init__(view, limits)
        self._place = place

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        saturated = super().saturated_for(request, share)
        if saturated is None or self._place(request, self._view, saturated) is None:
            return None
        return saturated

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        # Another request may want to go another way.
        return super().saturated_for(request, share) is not None or super().holds_back(
            request, share
        )
