"""Foretelling published figures, and fitting the efficiencies on those set apart for it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import astuple
from statistics import fmean, median

from load_tests.planner.published import PUBLISHED, Published
from weir.cards import make_card
from weir.cards.attention import is_mla, kv_heads
from weir.planner.accelerators import find_accelerator
from weir.planner.plan import OVERHEAD_BYTES
from weir.planner.roofline import Efficiencies, Roofline
from weir.planner.serving import Engine, Lengths, saturated

#: As in the published set-up: nearly all memory, and batches as large as fit.
_MEMORY_SHARE = 0.95
_MOST_STREAMS = 8192
#: Within what others measured (:class:`weir.planner.roofline.Efficiencies` names them).
_BOUNDS = (
    (0.3, 0.75),
    (0.2, 0.75),
    (0.5, 0.92),
    (0.2, 0.9),
    (2e-4, 6e-3),
    (0.0, 4e-5),
    (1e-6, 3e-5),
    (0.1, 1.0),
)
_TRIES = 1500
_STRIDE = 0.15


def foretold(of: Published, prompt: int, output: int, efficiencies: Efficiencies) -> float:
    """Output tokens per second of a replica that always has as many streams as fit."""
    config = of.config
    card = make_card(config, kv_dtype=of.kv_dtype)
    device = find_accelerator(of.accelerator)
    heads = 1 if is_mla(config) else kv_heads(config)
    line = Roofline(card, device, of.layout, efficiencies, int(config["hidden_size"]), heads)
    devices = of.layout.devices
    room = devices * (device.memory_bytes * _MEMORY_SHARE - OVERHEAD_BYTES) - line.weight_bytes
    engine = Engine(line, room, _MOST_STREAMS, reserves=True)
    return saturated(engine, Lengths(prompt, output, variation=0.0)) * output


def errors(of: Published, efficiencies: Efficiencies) -> list[float]:
    """Foretold over published, less one, for each row."""
    return [
        foretold(of, prompt, output, efficiencies) / figure - 1
        for prompt, output, figure in of.rows
    ]


def median_error(published: Iterable[Published], efficiencies: Efficiencies) -> float:
    """Median of the absolute relative errors of all rows."""
    return median(abs(error) for one in published for error in errors(one, efficiencies))


def fit(seed: int) -> Efficiencies:
    """Efficiencies that suit the fitted figures best, by random steps from the middle of their
    bounds. The measure is the mean absolute logarithm of foretold over published."""
    chosen = [one for one in PUBLISHED if one.fitted]

    def loss(candidate: Efficiencies) -> float:
        return fmean(abs(math.log1p(error)) for one in chosen for error in errors(one, candidate))

    rng = random.Random(seed)
    best = Efficiencies(*((low + high) / 2 for low, high in _BOUNDS))
    least = loss(best)
    for _ in range(_TRIES):
        stepped = zip(astuple(best), _BOUNDS, strict=True)
        values = (
            min(high, max(low, value * math.exp(rng.gauss(0, _STRIDE))))
            for value, (low, high) in stepped
        )
        candidate = Efficiencies(*values)
        if (now := loss(candidate)) < least:
            best, least = candidate, now
    return best
