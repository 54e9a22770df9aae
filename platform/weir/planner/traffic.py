"""Traffic to plan for: given as rates and lengths, or read from a trace.

Traces are JSON lines as Mooncake's (``timestamp`` in ms, ``input_length``, ``output_length``, and
optionally ``hash_ids``: one id for each block of 512 tokens, equal for equal prefixes), or CSV as
Azure's (``TIMESTAMP``, ``ContextTokens``, ``GeneratedTokens``); both may be gzipped.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, pstdev
from typing import IO, Any

from weir.errors import ConfigError

_WINDOW_S = 300.0
_BLOCK_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Traffic:
    """``peak_per_s``: the rate that must be served; ``mean_per_s``: what is paid for on the mean.
    Lengths in tokens; ``cached_share``: of the prompts, found in a cache; ``variation``: of the
    prompts' length, standard deviation over mean."""

    peak_per_s: float
    mean_per_s: float
    prompt: float
    output: float
    cached_share: float = 0.0
    variation: float = 1.0
    origin: str = "as given"


@dataclass(frozen=True, slots=True)
class _Row:
    at_s: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


def read_traffic(file: Path) -> Traffic:
    """The traffic of a trace: its busiest five minutes are the peak. Where rows have block ids, the
    cached share is that of a cache which never forgets, so it is the most that can be.

    Raises:
        ConfigError: the file is no trace of a known form.
    """
    try:
        rows = sorted(_rows(file), key=lambda row: row.at_s)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: not a trace of a known form ({error!r})", param="trace"
        ) from None
    if len(rows) < 2:
        raise ConfigError(f"{file}: a trace has at least two requests", param="trace")
    span_s = max(rows[-1].at_s - rows[0].at_s, 1e-9)
    window_s = min(_WINDOW_S, span_s)
    prompts = [row.prompt for row in rows]
    return Traffic(
        peak_per_s=_busiest(rows, window_s) / window_s,
        mean_per_s=len(rows) / span_s,
        prompt=fmean(prompts),
        output=max(1.0, fmean(row.output for row in rows)),
        cached_share=_shared(rows),
        variation=pstdev(prompts) / fmean(prompts),
        origin=f"{file.name}: {len(rows):,} requests in {span_s:,.0f} s",
    )


def _rows(file: Path) -> Iterator[_Row]:
    name = file.name.removesuffix(".gz")
    with _open(file) as text:
        if name.endswith(".csv"):
            yield from _azure(csv.DictReader(text))
        else:
            yield from _mooncake(json.loads(line) for line in text if line.strip())


def _open(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def _azure(table: Iterable[dict[str, str]]) -> Iterator[_Row]:
    for row in table:
        # The traces have seven digits behind the second; Python reads six.
        at = datetime.fromisoformat(row["TIMESTAMP"].strip()[:26])
        yield _Row(at.timestamp(), int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _mooncake(table: Iterable[dict[str, Any]]) -> Iterator[_Row]:
    for row in table:
        blocks = tuple(row.get("hash_ids") or ())
        yield _Row(row["timestamp"] / 1000, row["input_length"], row["output_length"], blocks)


def _busiest(rows: list[_Row], window_s: float) -> int:
    most = first = 0
    for last, row in enumerate(rows):
        while row.at_s - rows[first].at_s > window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def _shared(rows: list[_Row]) -> float:
    seen: set[int] = set()
    found = total = 0
    for row in rows:
        total += row.prompt
        known = 0
        for block in row.blocks:
            if block not in seen:
                break
            known += 1
        found += min(known * _BLOCK_TOKENS, row.prompt)
        seen.update(row.blocks)
    return found / total if total else 0.0
