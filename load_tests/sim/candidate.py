"""Two rules found by tuning in the simulator that weir does not ship yet; the bench shows them as
``weir candidate`` beside weir as it is.

* :class:`SavingWork`, a policy: least expected work, but prefill that a replica has to compute
  although another one would not counts ``1 + waste`` times. One request's first token gains
  little from that; the fleet has less to compute, which is what everybody waits for near
  saturation. A prompt that no replica holds is charged less (``damping_tokens``): its own first
  token is late enough.
* :class:`SparingCapacity`, a capacity for late binding: what a replica's cache spares a request
  counts as room there, ``spared`` times. Without it a full holder is left out, the request is
  prefilled elsewhere, which fills that replica too: late binding then destroys the locality that
  routing built.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.admission import ReplicaLimits, Share, SnapshotCapacity
from router.admission.capacity import Overlap
from router.policy import register
from router.types import Decision, RouteRequest, Snapshot


@dataclass(frozen=True, slots=True)
class SavingWorkParams:
    """Weights in prefill tokens, as in ``expected-work``; ``waste`` and ``damping_tokens``: see
    the module."""

    waste: float = 30.0
    damping_tokens: float = 16_000.0
    decode_weight: float = 0.25
    context_weight: float = 0.02


@register("saving-work", SavingWorkParams)
class SavingWork:
    """Least expected work, waste charged to the fleet."""

    def __init__(self, params: SavingWorkParams) -> None:
        self._params = params

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        """The least cost, equals by lot."""
        p, columns, held = self._params, snapshot.columns, snapshot.overlap_blocks
        fleet, prompt = columns.fleet, request.prompt_tokens
        new = [
            max(1, prompt - size * held.get(rid, 0))
            for rid, size in zip(fleet.ids, fleet.block_sizes, strict=True)
        ]
        charge = 1 + p.waste / (1 + min(new) / p.damping_tokens)
        costs = [
            prefill + p.decode_weight * decode + p.context_weight * context + charge * own
            for prefill, decode, context, own in zip(
                columns.prefill_tokens,
                columns.decode_tokens,
                columns.context_tokens,
                new,
                strict=True,
            )
        ]
        least = min(costs)
        best = rng.choice([i for i, cost in enumerate(costs) if cost == least])
        chosen = fleet.ids[best]
        return Decision(chosen, "least-work-and-waste", held.get(chosen, 0))


class SparingCapacity:
    """Room as :class:`SnapshotCapacity` sees it, and for cached prompts a little more."""

    def __init__(
        self, snapshot: Snapshot, limits: ReplicaLimits, overlap: Overlap, spared: float
    ) -> None:
        self._base = SnapshotCapacity(snapshot, limits, overlap)
        self._snapshot = snapshot
        self._limits = limits
        self._overlap = overlap
        self._spared = spared

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        """Ids of the replicas without room; None when none has room."""
        full = self._base.saturated_for(request, share)
        if full is not None and not full:
            return full
        held = self._overlap(request)
        if not held:
            return full
        ids = self._snapshot.columns.fleet.ids
        full = frozenset(ids) if full is None else full
        kept = frozenset(
            rid
            for slot, rid in enumerate(ids)
            if rid in full and not self._spares(slot, request, held.get(rid, 0), share)
        )
        return None if len(kept) == len(ids) else kept

    def _spares(self, slot: int, request: RouteRequest, blocks: int, share: Share) -> bool:
        columns, limits = self._snapshot.columns, self._limits
        fleet = columns.fleet
        tokens = blocks * fleet.block_sizes[slot]
        if not tokens or columns.requests[slot] + 1 > fleet.infos[slot].max_running:
            return False
        if (
            columns.prefill_tokens[slot] - self._spared * tokens
            >= share.prefill * limits.prefill_tokens
        ):
            return False
        capacity = fleet.capacity_tokens[slot]
        coming = columns.context_tokens[slot] + columns.decode_tokens[slot]
        return not capacity or coming + request.prompt_tokens - tokens <= limits.kv_fill * capacity
