"""Mooncake's format: one JSON object per request with chained ids of 512-token blocks.

``timestamp`` ms, ``input_length``, ``output_length`` tokens, ``hash_ids`` (same id: same whole
prefix; the last id may stand for a block that is not full, which an engine cannot reuse, so it
is dropped). Source: kvcache-ai/Mooncake, FAST'25 release.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

from load_tests.traces.reading import field, json_lines
from load_tests.traces.schema import Trace, TraceError, TraceRequest

BLOCK_SIZE = 512
SHARED = 1.25
"""So many requests per distinct stamp make it a step, not a coincidence."""


def load_mooncake(path: Path, limit: int | None = None, block_size: int = BLOCK_SIZE) -> Trace:
    """Read a Mooncake file. ``tick_s`` is the timestamps' step (3 s in the releases)."""
    requests: list[TraceRequest] = []
    stamps: list[int] = []
    for number, row in json_lines(path, limit):
        stamp = field(path, number, row, "timestamp", int)
        prompt = field(path, number, row, "input_length", int)
        ids = row.get("hash_ids")
        if not isinstance(ids, list):
            raise TraceError(f"{path}:{number}: hash_ids should be a list")
        full = min(len(ids), prompt // block_size)
        stamps.append(stamp)
        requests.append(
            TraceRequest(
                arrival_s=stamp / 1e3,
                prompt_tokens=max(1, prompt),
                output_tokens=max(1, field(path, number, row, "output_length", int)),
                block_hashes=tuple(ids[:full]),
            )
        )
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(path.name, "mooncake", block_size, tuple(requests), tick_s=_tick_s(stamps))


def _tick_s(stamps_ms: list[int]) -> float:
    """The recording's step: the usual gap between distinct stamps, where requests share them."""
    distinct = sorted(set(stamps_ms))
    if len(distinct) < 2 or len(stamps_ms) < SHARED * len(distinct):
        return 0.0
    return statistics.median(b - a for a, b in pairwise(distinct)) / 1e3
