"""ServeGen's client statistics, turned into requests by drawing from them.

The files hold no requests: per client and 600 s window an arrival rate, the fitted distribution
of the gaps (Gamma or Weibull with shape ``iat_p1``) and quantiles of the token counts. Gaps are
drawn with the fitted shape and scaled to the measured rate; token counts are drawn by inverting
the piecewise-linear quantile function. Clients are the tenants. Source: alibaba/ServeGen.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from load_tests.traces.reading import csv_rows, field
from load_tests.traces.schema import Trace, TraceError, TraceRequest

BLOCK_SIZE = 16
WINDOW_S = 600.0
_COLUMNS = ("client", "window_start_s", "req_per_s", "iat_dist", "iat_p1")
_QUANTILES = ("p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class _Client:
    name: str
    rate_per_s: float
    weibull: bool
    shape: float
    prompt: tuple[float, ...]
    output: tuple[float, ...]


def load_servegen(
    path: Path, limit: int | None = None, window_start_s: int | None = None, seed: int = 0
) -> Trace:
    """Draw one window's requests (default: the window with the most clients)."""
    windows: dict[int, list[_Client]] = defaultdict(list)
    for number, row in csv_rows(path, _COLUMNS):
        start = field(path, number, dict(row), "window_start_s", int)
        windows[start].append(_client(path, number, row))
    if not windows:
        raise TraceError(f"{path}: no window")
    if window_start_s is None:
        window_start_s = max(windows, key=lambda start: (len(windows[start]), -start))
    if window_start_s not in windows:
        raise TraceError(f"{path}: no window starts at {window_start_s} s")
    rng = random.Random(seed)
    drawn = [request for client in windows[window_start_s] for request in _draw(client, rng)]
    drawn.sort(key=lambda request: request.arrival_s)
    return Trace(path.name, "servegen", BLOCK_SIZE, tuple(drawn[:limit]))


def _client(path: Path, number: int, row: dict[str, str]) -> _Client:
    return _Client(
        name=f"client-{row['client']}",
        rate_per_s=field(path, number, dict(row), "req_per_s", float),
        weibull=row["iat_dist"] == "Weibull",
        shape=field(path, number, dict(row), "iat_p1", float),
        prompt=_quantiles(row, "in", (200.0, 800.0, 2000.0)),
        output=_quantiles(row, "out", (100.0, 400.0, 1000.0)),
    )


def _quantiles(row: dict[str, str], kind: str, absent: tuple[float, ...]) -> tuple[float, ...]:
    """p50, p90, p99, or ``absent`` where the source had no histogram."""
    cells = [row.get(f"{kind}_{name}") for name in _QUANTILES]
    values = tuple(float(cell) for cell in cells if cell)
    return values if len(values) == len(_QUANTILES) else absent


def _draw(client: _Client, rng: random.Random) -> Iterator[TraceRequest]:
    if client.rate_per_s <= 0:
        return
    mean_s = 1 / client.rate_per_s
    now = rng.uniform(0, min(mean_s, WINDOW_S))
    while now < WINDOW_S:
        yield TraceRequest(
            arrival_s=now,
            prompt_tokens=_tokens(client.prompt, rng.random()),
            output_tokens=_tokens(client.output, rng.random()),
            tenant=client.name,
        )
        now += _gap(client, mean_s, rng)


def _gap(client: _Client, mean_s: float, rng: random.Random) -> float:
    if client.weibull:
        scale = mean_s / math.gamma(1 + 1 / client.shape)
        return rng.weibullvariate(scale, client.shape)
    return rng.gammavariate(client.shape, mean_s / client.shape)


def _tokens(quantiles: tuple[float, ...], u: float) -> int:
    """Inverse of the quantile function through (0, 1), (.5, p50), (.9, p90), (.99, p99); above
    that, the last slope goes on."""
    p50, p90, p99 = quantiles
    if u < 0.5:
        value = 1 + (p50 - 1) * u / 0.5
    elif u < 0.9:
        value = p50 + (p90 - p50) * (u - 0.5) / 0.4
    else:
        value = p90 + (p99 - p90) * (u - 0.9) / 0.09
    return max(1, round(value))
