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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from router.ledger import prefill_work
from router.scoring import Scale, Weight, less_is_better, register_scorer
from router.tiers import Tiered
from router.types import RouteRequest, Snapshot

#: Half and two and a half times of either are within 1 % of goodput, on both traces.
WASTE = 16.0
DAMPING_TOKENS = 64_000.0


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
        p, columns, held = self._params, snapshot.columns, snapshot.overlap_blocks
        fleet, prompt = columns.fleet, request.prompt_tokens
        d, c = p.decode_weight, p.context_weight
        charged: Mapping[int | str, float] = {0: 0.0}
        keys: Iterable[int | str] = repeat(0)
        own = whole = prefill_work(prompt, 0, fleet.attention_tokens)
        if held or snapshot.tiered:
            charged, keys, most, pull = self._savings(prompt, whole, snapshot)
            own += pull * most
        # The hottest line of a decision: one pass over all candidates, no calls in it.
        costs = [
            own + prefill + d * decode + c * context - charged[key]
            for prefill, decode, context, key in zip(
                columns.prefill_work,
                columns.decode_tokens,
                columns.context_tokens,
                keys,
                strict=False,  # without overlap, ``keys`` has no end
            )
        ]
        if snapshot.adapter_work is None:
            return costs
        return [cost + more for cost, more in zip(costs, snapshot.adapter_work, strict=True)]

    def _savings(
        self, prompt: int, whole: float, snapshot: Snapshot
    ) -> tuple[Mapping[int | str, float], Iterable[int | str], float, float]:
        """What a cache spares, charged ``1 + pull`` times, by key, and each replica's key; the
        most that any spares; and the pull."""
        p, fleet, held = self._params, snapshot.columns.fleet, snapshot.overlap_blocks
        attention, tiered = fleet.attention_tokens, snapshot.tiered
        if fleet.block_size and not tiered:
            tokens: Mapping[int | str, float] = {n: n * fleet.block_size for n in {*held.values()}}
            keys: Iterable[int | str] = map(held.get, fleet.ids, repeat(0))
        else:
            sizes = zip(fleet.ids, fleet.block_sizes, strict=True)
            blocks = _with_tiers(held, tiered) if tiered else held
            tokens = {rid: blocks.get(rid, 0) * size for rid, size in sizes}
            keys = fleet.ids
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
        charged = {key: (1.0 + pull) * value for key, value in spared.items()}
        charged.setdefault(0, 0.0)
        return charged, keys, most, pull


def _with_tiers(held: Mapping[str, int], tiered: Mapping[str, Tiered]) -> Mapping[str, int]:
    """Leading blocks that a replica has, wherever it has them."""
    return {**held, **{rid: held.get(rid, 0) + beyond.blocks for rid, beyond in tiered.items()}}
