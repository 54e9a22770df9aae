"""Prompts and answers in pools of their own: how many replicas of each.

A prefill replica computes prompts one after the other and is bound by TTFT; a decode replica only
generates, and is bound by TPOT and by KV room. The prompt's KV cache crosses the network once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from weir.planner.serving import (
    Engine,
    Lengths,
    Slo,
    State,
    balance,
    best_rate,
    mean_wait_s,
    tail_wait_s,
)

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
    service_s = _service(engine, lengths)
    prefill_rate = _prefill_rate(service_s, lengths, left)
    # A decode replica finds all of the prompt in its cache, so to say.
    generating = replace(lengths, cached=lengths.prompt)
    decode = best_rate(engine, generating, slo)
    if prefill_rate is None or decode is None:
        return None
    prefills = math.ceil(rate_per_s / prefill_rate)
    decodes = math.ceil(rate_per_s / decode.rate_per_s)
    at_peak = balance(engine, generating, rate_per_s / decodes, slo.share)
    tail_s = _prefill_tail(service_s, lengths, rate_per_s / prefills, slo.share)
    return Split(
        prefills, decodes, prefill_rate, at_peak or decode, transfer_s, tail_s + transfer_s
    )


def _prefill_rate(service_s: float, lengths: Lengths, slo: Slo) -> float | None:
    """The highest rate of one replica within TTFT; None where there is none."""
    if service_s > slo.ttft_s:
        return None
    low, high = 0.0, 1 / service_s
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        if _prefill_tail(service_s, lengths, rate, slo.share) <= slo.ttft_s:
            low = rate
        else:
            high = rate
    return low or None


def _service(engine: Engine, lengths: Lengths) -> float:
    return engine.roofline.prefill_s(
        math.ceil(lengths.computed), round(lengths.cached), engine.batched_tokens
    )


def _prefill_tail(service_s: float, lengths: Lengths, rate_per_s: float, share: float) -> float:
    """TTFT of the given share of prompts; infinite where the replica falls behind."""
    load = rate_per_s * service_s
    if load >= 1:
        return math.inf
    waits_s = mean_wait_s(service_s, load, lengths.variation)
    return service_s + tail_wait_s(waits_s, load, share)
