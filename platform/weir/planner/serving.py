"""What one replica sustains: streams, step time, tokens per second, TTFT and TPOT at a rate.

Lengths are means. A replica that is given ``rate`` requests per second holds, by Little's law,
``rate * output * step`` streams, and computes ``rate * step`` prompts in each step; the step time
follows from both (:class:`weir.planner.roofline.Roofline`), so the three are found together.

Prompts queue for the engine's token budget. Their waiting time is taken as that of an M/G/1 queue
whose server is the part of the steps that computes prompts, with an exponential tail: the chance to
wait longer than ``t`` is ``load * exp(-t / mean wait given that one waits)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weir.planner.roofline import Roofline

_ROUNDS = 60
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of a mean request, in tokens. ``cached``: of the prompt, found in the KV cache.
    ``variation``: standard deviation of the uncached prompt's length over its mean."""

    prompt: float
    output: float
    cached: float = 0.0
    variation: float = 1.0

    @property
    def computed(self) -> float:
        """Prompt tokens that are not cached."""
        return max(1.0, self.prompt - self.cached)

    @property
    def context(self) -> float:
        """Mean tokens behind a stream while it decodes."""
        return self.prompt + self.output / 2


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits for the given share of requests (TTFT) and for the mean step (TPOT)."""

    ttft_s: float
    tpot_s: float
    share: float = 0.99


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's limits. ``kv_bytes``: room of the KV cache, over all devices of the replica.
    ``reserves``: a stream begins only when all of its output fits too (TensorRT-LLM's default);
    else it takes blocks as it grows (vLLM)."""

    roofline: Roofline
    kv_bytes: float
    most_streams: int = 1024
    batched_tokens: int = 8192
    reserves: bool = False

    def room(self, lengths: Lengths) -> int:
        """Streams that fit: each holds, on the mean, its prompt and half of its output."""
        held = lengths.prompt + lengths.output if self.reserves else lengths.context
        each = self.roofline.card.request_bytes(math.ceil(held)) * self.roofline.kv_copies
        fit = int(self.kv_bytes // each) if each else self.most_streams
        return min(self.most_streams, fit)


@dataclass(frozen=True, slots=True)
class State:
    """An engine in balance. ``load``: share of its steps' room for prompts that is used."""

    rate_per_s: float
    streams: float
    step_s: float
    ttft_mean_s: float
    ttft_tail_s: float
    load: float

    @property
    def tpot_s(self) -> float:
        """Each stream puts out one token a step."""
        return self.step_s


def saturated(engine: Engine, lengths: Lengths) -> float:
    """Requests per second of an engine that always has as many streams as fit."""
    streams = engine.room(lengths)
    if not streams:
        return 0.0
    step_s = _step_of(engine, lengths, streams, streams / lengths.output)
    return streams / lengths.output / step_s


def balance(engine: Engine, lengths: Lengths, rate_per_s: float, share: float) -> State | None:
    """The state at ``rate_per_s``; None where there is none: the engine falls behind."""
    room = engine.room(lengths)
    step_s = _step_of(engine, lengths, 1.0, 0.0)
    for _ in range(_ROUNDS):
        streams = rate_per_s * lengths.output * step_s
        if streams > room:
            return None
        new_s = _step_of(engine, lengths, streams, rate_per_s * step_s)
        if abs(new_s - step_s) < 1e-6 * step_s:
            break
        step_s = new_s
    streams = rate_per_s * lengths.output * step_s
    return _with_waiting(engine, lengths, rate_per_s, streams, step_s, share)


def _with_waiting(
    engine: Engine, lengths: Lengths, rate: float, streams: float, step_s: float, share: float
) -> State | None:
    """Adds how long prompts wait and take."""
    line = engine.roofline
    per_step = max(1.0, engine.batched_tokens - streams)
    full = line.step(per_step, streams, lengths.context, lengths.cached + lengths.computed / 2)
    # A prompt occupies full steps in proportion to its tokens, and at least a part of one.
    service_s = lengths.computed / per_step * full.total_s
    load = rate * service_s
    if load >= 1:
        return None
    alone = line.step(
        min(lengths.computed, per_step),
        streams,
        lengths.context,
        lengths.cached + lengths.computed / 2,
    ).total_s
    own_s = max(service_s, alone) + step_s / 2
    waits_s = mean_wait_s(service_s, load, lengths.variation)
    tail_s = tail_wait_s(waits_s, load, share)
    return State(rate, streams, step_s, own_s + load * waits_s, own_s + tail_s, load)


def mean_wait_s(service_s: float, load: float, variation: float) -> float:
    """Of a prompt that waits at all, in an M/G/1 queue with ``load`` below 1."""
    return service_s * (1 + variation**2) / 2 / (1 - load)


def tail_wait_s(waits_s: float, load: float, share: float) -> float:
    """The wait that the given share of prompts does not exceed, with an exponential tail."""
    return max(0.0, waits_s * math.log(max(load, 1e-9) / (1 - share)))


def best_rate(engine: Engine, lengths: Lengths, slo: Slo) -> State | None:
    """The highest rate at which both limits hold; None where not even one request at a time does.

    TTFT and TPOT grow with the rate, so halving finds it.
    """
    low, high = 0.0, saturated(engine, lengths)
    best: State | None = None
    for number in range(_HALVINGS):
        rate = (low + high) / 2 if number else high * 1e-3
        state = balance(engine, lengths, rate, slo.share)
        good = state is not None and state.ttft_tail_s <= slo.ttft_s and state.tpot_s <= slo.tpot_s
        if good:
            low, best = rate, state
        elif not number:
            return None
        else:
            high = rate
        if high - low < 1e-4 * high:
            break
    return best


def _step_of(engine: Engine, lengths: Lengths, streams: float, prompts: float) -> float:
    tokens = prompts * lengths.computed
    attended = lengths.cached + lengths.computed / 2
    return engine.roofline.step(tokens, streams, lengths.context, attended).total_s
