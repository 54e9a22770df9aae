"""Expected work: the core of weir's profile. Everything in the unit of one token to prefill.

What a new request waits for on a replica is, first of all, prefill: that of the requests ahead and
its own, minus what the cache spares it. Decoding there slows both by little per sequence. So

    cost = prefill outstanding + own uncached prompt + pull · (most cached anywhere - cached here)
         + decode_weight · decode tokens outstanding
         + context_weight · context tokens in flight
         + what loading the request's LoRA adapter delays (:mod:`router.adapters`)

and the least cost wins. Overlap enters only through the uncached prompt, which is the point: a
longest match alone sends everything to one replica as soon as all prompts share a block, while
here a block shared by all weighs its own prefill and nothing more. The form is that of NVIDIA
Dynamo's KV router (load minus overlap credit) and of Preble's "load cost" (Srivatsa et al. 2024).

A block that a replica keeps outside its device (:mod:`router.tiers`) counts as cached there, less
what loading it costs. That this gains anything is not shown: the simulator's engines have no tiers.

Waste. Computing again what another replica holds costs not only this request: everybody behind it
waits, and what it writes pushes other prefixes out of that cache. So the difference to the best
holder is charged once more, ``pull`` times:

    pull = WASTE · most / (most + short_tokens) / (1 + uncached by the best holder / DAMPING_TOKENS)

A short common prefix pulls little, since it is soon on every replica anyway; a prompt that is long
even for its best holder is pulled little, since its own first token is late enough.

A hot prefix replicates by itself: once the work queued on its holders exceeds ``1 + pull`` times
the prefill that holding saves, another replica costs less, takes the next request and becomes a
holder. With admission on there is a second way: a holder whose outstanding prefill exceeds the
limit by ``cached_token_room`` times what it holds is left out of the choice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

from router.held import Common, Held
from router.ledger import prefill_work
from router.scoring import Scale, Weight, choose_least, has_room, less_is_better, register_scorer
from router.snapshot import Columns, Snapshot
from router.tiers import Tiered
from router.types import RouteRequest

#: Half and two and a half times of either are within 1 % of goodput, on both traces.
WASTE = 16.0
DAMPING_TOKENS = 64_000.0
#: More holders than this are not compared apart from the rest.
_FEW = 16


@dataclass(frozen=True, slots=True)
class ExpectedWorkParams:
    """Weights in prefill tokens per unit; ``overlap_weight`` 1 believes the index fully.

    ``short_tokens``: see the module. ``scale_tokens``: the cost
    that scores ½.
    """

    overlap_weight: Weight = 1.0
    short_tokens: Weight = 2048.0
    decode_weight: Weight = 0.25
    context_weight: Weight = 0.02
    scale_tokens: Scale = 8192.0


@register_scorer("expected-work", ExpectedWorkParams)
class ExpectedWork:
    """See the module's docstring."""

    def __init__(self, params: ExpectedWorkParams) -> None:
        self._params = params

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        return less_is_better(self.costs(request, snapshot), self._params.scale_tokens)

    def costs(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """Tokens of prefill (or what equals them) before and for this request, per candidate."""
        return self._costs(self._savings(request, snapshot), snapshot)

    def least(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> int:
        """The candidate of least cost that has room; equals are drawn by lot."""
        savings, columns = self._savings(request, snapshot), snapshot.columns
        holder = self._clear_winner(savings, snapshot)
        if holder is not None and has_room(request, columns, holder):
            return holder
        return choose_least(request, columns, self._costs(savings, snapshot), rng)

    def _costs(self, savings: _Savings, snapshot: Snapshot) -> list[float]:
        columns = snapshot.columns
        own, fleet = savings.own, columns.fleet
        saved: Iterable[float] = repeat(0.0)
        if savings.charged:
            common = savings.common
            keys = fleet.ids if common is None else common.column(fleet.ids)
            saved = map(savings.charged.__getitem__, keys)
        d, c = self._params.decode_weight, self._params.context_weight
        # The hottest line of a decision: one pass over all candidates, no calls in it.
        costs = [
            own + prefill + d * decode + c * context - spared
            for prefill, decode, context, spared in zip(
                columns.prefill_work,
                columns.decode_tokens,
                columns.context_tokens,
                saved,
                strict=False,  # where nothing is held, it has no end
            )
        ]
        for slot, cost in self._costs_of_few(savings, columns):
            costs[slot] = cost
        if snapshot.adapter_work is None:
            return costs
        return [cost + more for cost, more in zip(costs, snapshot.adapter_work, strict=True)]

    def _costs_of_few(self, savings: _Savings, columns: Columns) -> list[tuple[int, float]]:
        """Slots and costs, in the same order of sums as all others, so that equals stay equal."""
        own, slots, work = savings.own, columns.fleet.slots, columns.prefill_work
        decodes, contexts = columns.decode_tokens, columns.context_tokens
        d, c = self._params.decode_weight, self._params.context_weight
        found = []
        for replica_id, saved in savings.by_few.items():
            slot = slots.get(replica_id)
            if slot is not None:
                cost = own + work[slot] + d * decodes[slot] + c * contexts[slot] - saved
                found.append((slot, cost))
        return found

    def _clear_winner(self, savings: _Savings, snapshot: Snapshot) -> int | None:
        """The one of the few that hold more than the others whose cost is least, if it is less than
        any other's would be with nothing outstanding. That is so for most prompts that continue
        something, and then nobody has to look at the whole fleet."""
        common = savings.common
        if common is None or not savings.by_few or snapshot.adapter_work is not None:
            return None
        found = self._costs_of_few(savings, snapshot.columns)
        if not found:
            return None
        slot, least = min(found, key=itemgetter(1))
        if least >= savings.own - savings.charged[common.most]:
            return None
        return slot if sum(cost == least for _, cost in found) == 1 else None

    def _savings(self, request: RouteRequest, snapshot: Snapshot) -> _Savings:
        p, fleet, held = self._params, snapshot.columns.fleet, snapshot.held
        prompt, attention, tiered = request.prompt_tokens, fleet.attention_tokens, snapshot.tiered
        whole = prefill_work(prompt, 0, attention)
        if not held and not tiered:
            return _Savings(whole, {}, None, {})
        if len(held.few) > _FEW:
            held = Held(Common({**held.every}), {})
        alike = fleet.block_size and not tiered
        if alike:
            tokens: Mapping[int | str, float] = {n: n * fleet.block_size for n in held.depths()}
        else:
            sizes = zip(fleet.ids, fleet.block_sizes, strict=True)
            blocks = _with_tiers(held.every, tiered) if tiered else held.every
            tokens = {rid: blocks.get(rid, 0) * size for rid, size in sizes}
        spared: dict[int | str, float] = {
            key: p.overlap_weight * (whole - prefill_work(max(1, prompt - n), n, attention))
            for key, n in tokens.items()
        }
        if tiered:
            spared[0] = 0.0  # loading may cost more than it spares, nobody spares less than nothing
            for rid, beyond in tiered.items():
                spared[rid] -= beyond.load_work
        most = max(spared.values())
        pull = WASTE * most / (most + p.short_tokens)
        pull /= 1.0 + max(1.0, whole - most) / DAMPING_TOKENS
        own = whole + pull * most
        charged = {key: (1.0 + pull) * value for key, value in spared.items()}
        if not alike:
            return _Savings(own, charged, None, {})
        charged[0] = 0.0
        by_few = {rid: charged[n] for rid, n in held.few.items()}
        return _Savings(own, charged, held.common, by_few)


class _Savings(NamedTuple):
    """``own``: the prompt's cost where nothing of it is cached. ``charged``: what a cache spares of
    it, charged ``1 + pull`` times, by the number of blocks (``common``: how many many replicas
    hold), or by replica where replicas differ (``common`` None); nothing is held where it is empty.
    ``by_few``: the same of the few that hold more, by replica."""

    own: float
    charged: Mapping[int | str, float]
    common: Common | None
    by_few: Mapping[str, float]


def _with_tiers(held: Mapping[str, int], tiered: Mapping[str, Tiered]) -> Mapping[str, int]:
    """Leading blocks that a replica has, wherever it has them."""
    return {**held, **{rid: held.get(rid, 0) + beyond.blocks for rid, beyond in tiered.items()}}
