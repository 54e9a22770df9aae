"""Poisson streams of requests whose lengths follow two public traces' quantiles.

The quantiles (0, 10, 25, 50, 75, 90, 99 and 100 %) are those of the Azure 2023 inference traces
(Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv first 2400 s, _code whole), so that the
bench needs no file. There are no shared prefixes: this is about order, not about caches.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

from load_tests.traces import Trace, TraceRequest

BLOCK_SIZE = 16
_POINTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Quantiles of prompt and output tokens."""

    name: str
    prompt: tuple[int, ...]
    output: tuple[int, ...]

    def mean_tokens(self) -> tuple[float, float]:
        """(prompt, output), of the piecewise-linear distributions."""
        return _mean(self.prompt), _mean(self.output)


CHAT = Lengths(
    "azure-conv",
    (2, 220, 396, 1015, 1204, 4074, 4122, 14050),
    (7, 50, 81, 115, 393, 421, 598, 1000),
)
CODE = Lengths(
    "azure-code",
    (3, 147, 578, 1469, 2745, 5194, 7436, 7437),
    (6, 7, 9, 13, 24, 55, 252, 1899),
)
#: Ours, after no trace: summaries of long documents, as batch jobs have them.
DOCUMENTS = Lengths(
    "documents",
    (8_000, 12_000, 16_000, 24_000, 40_000, 64_000, 96_000, 100_000),
    (50, 100, 150, 200, 300, 400, 500, 500),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """``rate_per_s`` requests of one tenant and class from ``start_s`` to ``end_s``."""

    tenant: str
    priority_class: str
    lengths: Lengths
    rate_per_s: float
    end_s: float
    start_s: float = 0.0


def make_trace(streams: Sequence[Stream], seed: int) -> Trace:
    """All streams together. Each has its own random numbers, so that taking one away or making
    it faster changes nothing about the others."""
    requests: list[TraceRequest] = []
    for stream in streams:
        rng = random.Random(f"{seed}/{stream.tenant}/{stream.priority_class}")
        now = stream.start_s + rng.expovariate(stream.rate_per_s)
        while now < stream.end_s:
            prompt = _draw(stream.lengths.prompt, rng.random())
            output = _draw(stream.lengths.output, rng.random())
            requests.append(
                TraceRequest(
                    now,
                    prompt,
                    output,
                    tenant=stream.tenant,
                    priority_class=stream.priority_class,
                )
            )
            now += rng.expovariate(stream.rate_per_s)
    requests.sort(key=lambda request: request.arrival_s)
    return Trace("streams", "synthetic", BLOCK_SIZE, tuple(requests))


def _draw(quantiles: tuple[int, ...], u: float) -> int:
    place = min(bisect.bisect_right(_POINTS, u), len(_POINTS) - 1)
    low, high = _POINTS[place - 1], _POINTS[place]
    share = (u - low) / (high - low)
    return max(1, round(quantiles[place - 1] + share * (quantiles[place] - quantiles[place - 1])))


def _mean(quantiles: tuple[int, ...]) -> float:
    return sum(
        (_POINTS[i + 1] - _POINTS[i]) * (quantiles[i] + quantiles[i + 1]) / 2
        for i in range(len(_POINTS) - 1)
    )
