"""KV: how much of a replica's KV cache its requests may come to need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.admission.limit import Limit, register
from router.types import RouteRequest
from router.view import View
from weir.settings.admission import Part, Share


@dataclass(frozen=True, slots=True)
class KvParams:
    """``fill``: part of the KV blocks to plan for. ``stats_max_age_s``: older stats of a replica
    are ignored, the own ledger stands alone."""

    fill: Part = 0.95
    stats_max_age_s: Annotated[float, Field(ge=0)] = 1.0


@register("kv", KvParams)
class KvLimit(Limit):
    """In use is the replica's word while it is fresh, else what the own requests keep; what the
    outstanding tokens will need is added to either. What the replica has cached of the request
    needs no new blocks. Beyond its KV an engine preempts and computes again.
    Its worth alone was not measured."""

    def __init__(self, params: KvParams) -> None:
        self._params = params

    def room_everywhere(self, request: RouteRequest, share: Share, view: View) -> bool:
        need = request.prompt_tokens + request.expected_output_tokens
        least = view.columns.fleet.least_capacity_tokens
        # Where no capacity is known, nothing is left out either.
        return not least or self._most_in_use(view) + need <= share.kv * self._params.fill * least

    def room_on(self, request: RouteRequest, share: Share, view: View, slot: int) -> bool:
        need = request.prompt_tokens + request.expected_output_tokens
        capacity = view.columns.fleet.capacity_tokens[slot]
        over = self._in_use(view, slot) + need - share.kv * self._params.fill * capacity
        return over <= 0 or not capacity

    def with_room(
        self, request: RouteRequest, share: Share, view: View, busy: list[int]
    ) -> list[int]:
        fleet, part = view.columns.fleet, share.kv * self._params.fill
        need = request.prompt_tokens + request.expected_output_tokens
        capacity = fleet.capacity_tokens
        room, lacking = [], []
        for slot in busy:
            over = self._in_use(view, slot) + need - part * capacity[slot]
            if over <= 0 or not capacity[slot]:
                room.append(slot)
            else:
                lacking.append((slot, over))
        if lacking and (held := view.held(request)):
            ids, sizes = fleet.ids, fleet.block_sizes
            room += [slot for slot, over in lacking if over <= held.get(ids[slot], 0) * sizes[slot]]
        return room

    def _most_in_use(self, view: View) -> int:
        """No candidate has more than this in use, and mostly none has nearly as much."""
        columns = view.columns
        blocks = columns.most_blocks_used * columns.fleet.largest_block_size
        used = blocks + max(columns.prefill_tokens)
        return max(used, max(columns.context_tokens)) + max(columns.decode_tokens)

    def _in_use(self, view: View, slot: int) -> int:
        columns = view.columns
        stats, decode = columns.stats[slot], columns.decode_tokens[slot]
        if stats.at_s >= view.now_s - self._params.stats_max_age_s:
            used = stats.kv_blocks_used * columns.fleet.block_sizes[slot]
            return used + columns.prefill_tokens[slot] + decode
        return columns.context_tokens[slot] + decode
