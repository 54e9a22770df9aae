"""Demand over days, from ServeGen's rates per client (real tenants of Bailian, 14 days).

A window of 600 s has each client's rate, how bursty it is, and its mean lengths. Within a window,
ticks vary as a renewal process of such burstiness does: the variance of a count is its mean times
the squared coefficient of variation. A share of the clients, chosen by seed, is taken as batch
work.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WINDOW_S = 600.0
_LENGTH_VARIATION = 1.5
_SPREAD_LIMIT = 12.0


@dataclass(frozen=True, slots=True)
class Ticks:
    """Arrays of one length: requests, prompt and output tokens that arrive in each tick, of what
    is served as it comes (``urgent``) and of batch work."""

    tick_s: float
    urgent_requests: np.ndarray
    urgent_prompts: np.ndarray
    urgent_outputs: np.ndarray
    batch_requests: np.ndarray
    batch_prompts: np.ndarray
    batch_outputs: np.ndarray

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The six arrays, in the order of the fields."""
        return (
            self.urgent_requests,
            self.urgent_prompts,
            self.urgent_outputs,
            self.batch_requests,
            self.batch_prompts,
            self.batch_outputs,
        )

    def part(self, first_s: float, last_s: float) -> Ticks:
        """Those between two times."""
        a, b = int(first_s / self.tick_s), int(last_s / self.tick_s)
        return Ticks(self.tick_s, *(column[a:b] for column in self.columns))

    def __len__(self) -> int:
        return len(self.urgent_requests)

    @property
    def mean_prompt(self) -> float:
        """Tokens of a mean prompt, all work together."""
        total = self.urgent_prompts.sum() + self.batch_prompts.sum()
        return float(total / (self.urgent_requests.sum() + self.batch_requests.sum()))

    @property
    def mean_output(self) -> float:
        """Tokens of a mean answer."""
        total = self.urgent_outputs.sum() + self.batch_outputs.sum()
        return float(total / (self.urgent_requests.sum() + self.batch_requests.sum()))


@dataclass(frozen=True, slots=True)
class _Window:
    client: str
    at_s: float
    rate: float
    variation: float
    prompt: float
    output: float


def read_servegen(
    file: Path, batch_share: float, seed: int, tick_s: float = 10.0, bursts: int | None = None
) -> Ticks:
    """Ticks over the whole file. ``batch_share``: of the clients' tokens, about. ``bursts``: seed
    of what happens within windows, where it is to be another one.

    Raises:
        FileNotFoundError: the file is not there.
    """
    windows = _windows(file)
    batch = _batch_clients(windows, batch_share, seed)
    starts = sorted({window.at_s for window in windows})
    index = {at_s: number for number, at_s in enumerate(starts)}
    each = int(WINDOW_S / tick_s)
    arrays = [np.zeros(len(starts) * each) for _ in range(6)]
    rng = np.random.default_rng(seed if bursts is None else bursts)
    for window in windows:
        first = index[window.at_s] * each
        counts = _counts(window, each, tick_s, rng)
        here = slice(first, first + each)
        base = 3 if window.client in batch else 0
        arrays[base][here] += counts
        arrays[base + 1][here] += counts * window.prompt
        arrays[base + 2][here] += counts * window.output
    return Ticks(tick_s, *arrays)


def _counts(window: _Window, ticks: int, tick_s: float, rng: np.random.Generator) -> np.ndarray:
    """Requests in each tick: gamma distributed, with the mean of the window, and the variance of a
    renewal process whose requests differ in length."""
    mean = window.rate * tick_s
    if mean <= 0:
        return np.zeros(ticks)
    spread = min(window.variation, _SPREAD_LIMIT) ** 2 + _LENGTH_VARIATION**2
    shape = mean / spread
    drawn: np.ndarray = rng.gamma(shape, spread, ticks)
    total = drawn.sum()
    # The window's own rate is data, only what happens within it is drawn.
    return drawn * (mean * ticks / total) if total > 0 else np.full(ticks, mean)


def _windows(file: Path) -> list[_Window]:
    rows: list[_Window] = []
    with gzip.open(file, "rt", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            if not row["req_per_s"] or not row["in_mean"] or not row["out_mean"]:
                continue
            rows.append(
                _Window(
                    row["client"],
                    float(row["window_start_s"]),
                    float(row["req_per_s"]),
                    float(row["iat_cv"] or 1.0),
                    float(row["in_mean"]),
                    float(row["out_mean"]),
                )
            )
    return rows


def _batch_clients(windows: Sequence[_Window], share: float, seed: int) -> set[str]:
    """Clients in random order until they have the share of all tokens."""
    tokens: dict[str, float] = {}
    for window in windows:
        of_window = window.rate * (window.prompt + window.output)
        tokens[window.client] = tokens.get(window.client, 0.0) + of_window
    order = sorted(tokens)
    random.Random(seed).shuffle(order)
    chosen: set[str] = set()
    left = share * sum(tokens.values())
    for client in order:
        # A client that has more than twice what is left would make the share another one.
        if 0 < tokens[client] <= 2 * left:
            chosen.add(client)
            left -= tokens[client]
    return chosen
