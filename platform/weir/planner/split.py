"""Prompts and answers in pools of their own: how many replicas of each.

A prefill replica computes prompts one after the other and is bound by TTFT; a decode replica only
generates, and is bound by TPOT and by KV room. The prompt's KV cache crosses the network once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from weir.planner.serving import Engine, Lengths, Slo, State, balance, best_rate

#: One 400 Gbit/s adapter for each device at 80 %: what a hand-off between nodes may use.
TRANSFER_BYTES_PER_S = 40e9
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Split:
    """``prefills`` and ``decodes``: replicas. ``ttft_tail_s`` has the transfer in it."""

    prefills: int
    decodes: int
    prefill_rate_per_s: float
    decode: State
    transfer_s: float
    ttft_tail_s: float


def best_split(engine: Engine, lengths: Lengths, slo: Slo, rate_per_s: float) -> Split | None:
    """The fewest replicas of each pool within the limits; None where there is no way."""
    moved = engine.roofline.card.request_bytes(math.ceil(lengths.prompt))
    transfer_s = moved / (TRANSFER_BYTES_PER_S * engine.roofline.layout.devices)
    left = replace(slo, ttft_s=slo.ttft_s - transfer_s)
    prefill = _prefill_rate(engine, lengths, left)
    # A decode replica finds all of the prompt in its cache, so to say.
    generating = replace(lengths, cached=lengths.prompt)
    decode = best_rate(engine, generating, slo)
    if prefill is None or decode is None:
        return None
    prefill_rate, _ = prefill
    prefills = math.ceil(rate_per_s / prefill_rate)
    decodes = math.ceil(rate_per_s / decode.rate_per_s)
    at_peak = balance(engine, generating, rate_per_s / decodes, slo.share)
    tail_s = _prefill_tail(engine, lengths, rate_per_s / prefills, slo.share)
    return Split(
        prefills, decodes, prefill_rate, at_peak or decode, transfer_s, tail_s + transfer_s
    )


def _prefill_rate(engine: Engine, lengths: Lengths, slo: Slo) -> tuple[float, float] | None:
    service_s = _service(engine, lengths)
    if service_s > slo.ttft_s:
        return None
    low, high = 0.0, 1 / service_s
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        if _prefill_tail(engine, lengths, rate, slo.share) <= slo.ttft_s:
            low = rate
        else:
            high = rate
    return (low, service_s) if low else None


def _service(engine: Engine, lengths: Lengths) -> float:
    return engine.roofline.prefill_s(
        math.ceil(lengths.computed), round(lengths.cached), engine.batched_tokens
    )


def _prefill_tail(engine: Engine, lengths: Lengths, rate_per_s: float, share: float) -> float:
    """TTFT of the given share of prompts: an M/G/1 queue with an exponential tail."""
    service_s = _service(engine, lengths)
    load = rate_per_s * service_s
    if load >= 1:
        return math.inf
    waits_s = service_s * (1 + lengths.variation**2) / 2 / (1 - load)
    return service_s + max(0.0, waits_s * math.log(max(load, 1e-9) / (1 - share)))
