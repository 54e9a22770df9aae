"""Places: how many requests a replica runs at once."""

from __future__ import annotations

from dataclasses import dataclass

from router.admission.limit import Limit, register
from router.types import RouteRequest
from router.view import View
from weir.settings.admission import Count, Share


@dataclass(frozen=True, slots=True)
class PlacesParams:
    """``running``: requests per replica (None: what the replica announces)."""

    running: Count | None = None


@register("places", PlacesParams)
class PlacesLimit(Limit):
    """A place that an engine does not have is a place in its own queue, which can be neither
    reordered nor moved. Its worth alone was not measured."""

    def __init__(self, params: PlacesParams) -> None:
        self._running = params.running

    def room_everywhere(self, request: RouteRequest, share: Share, view: View) -> bool:
        columns = view.columns
        most = self._running or columns.fleet.least_max_running
        return max(columns.requests, default=0) + 1 <= share.running * most

    def room_on(self, request: RouteRequest, share: Share, view: View, slot: int) -> bool:
        columns = view.columns
        most = self._running or columns.fleet.infos[slot].max_running
        return columns.requests[slot] + 1 <= max(1.0, share.running * most)

    def with_room(
        self, request: RouteRequest, share: Share, view: View, busy: list[int]
    ) -> list[int]:
        requests, infos, part = view.columns.requests, view.columns.fleet.infos, share.running
        most = self._running
        return [
            slot
            for slot in busy
            if requests[slot] + 1 <= max(1.0, part * (most or infos[slot].max_running))
        ]
