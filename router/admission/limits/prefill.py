"""Prefill: how many prompt tokens a replica may have outstanding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.admission.limit import Limit, register
from router.types import RouteRequest
from router.view import View
from weir.settings.admission import Count, Share


@dataclass(frozen=True, slots=True)
class PrefillParams:
    """``tokens``: dispatched and thought not to be done yet (see :mod:`router.ledger`); two engine
    steps' token budgets keep an engine busy without a queue inside it. ``cached_token_room``: what
    a request may find outstanding beyond that for each of its own tokens that the replica has
    cached.
    """

    tokens: Count = 4096
    cached_token_room: Annotated[float, Field(ge=0)] = 8.0


@register("prefill", PrefillParams)
class PrefillLimit(Limit):
    """With the whole limit a prompt may overshoot it. A class that leaves head-room may do so on a
    replica without prompts only: what is left of a prompt after one engine step takes the next
    step from whoever arrives meanwhile.

    What a replica's cache spares a request counts as room there. Without that, a replica at its
    limit is left out whatever it holds, the request is computed again elsewhere, fills that
    replica, too, and late binding destroys the locality that routing built: on agent sessions at
    saturation that halved goodput (docs/simulator.md).
    """

    def __init__(self, params: PrefillParams) -> None:
        self._params = params

    def room_everywhere(self, request: RouteRequest, share: Share, view: View) -> bool:
        columns, most = view.for_urgency(request.urgency), self._params.tokens
        if share.prefill < 1.0:
            most = max(1, int(share.prefill * most - request.prompt_tokens))
            return max(columns.prefill_tokens, default=0) < most
        return max(columns.prefill_work, default=0) < most

    def room_on(self, request: RouteRequest, share: Share, view: View, slot: int) -> bool:
        columns, most = view.for_urgency(request.urgency), self._params.tokens
        if share.prefill < 1.0:
            room = max(1.0, share.prefill * most - request.prompt_tokens)
            return columns.prefill_tokens[slot] < room
        return columns.prefill_work[slot] < most

    def with_room(
        self, request: RouteRequest, share: Share, view: View, busy: list[int]
    ) -> list[int]:
        columns = view.for_urgency(request.urgency)
        most: float = self._params.tokens
        outstanding = columns.prefill_work
        if share.prefill < 1.0:
            most = max(1.0, share.prefill * most - request.prompt_tokens)
            outstanding = columns.prefill_tokens  # an estimate is no head-room
        room = [slot for slot in busy if outstanding[slot] < most]
        if len(room) == len(busy) or not (held := view.held(request)):
            return room
        fleet, per_token = columns.fleet, self._params.cached_token_room
        ids, sizes = fleet.ids, fleet.block_sizes
        return [
            slot
            for slot in busy
            if outstanding[slot] < most + per_token * held.get(ids[slot], 0) * sizes[slot]
        ]
