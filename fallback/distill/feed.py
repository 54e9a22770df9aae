"""Rows to batches of about the same number of tokens, from a place that can be returned to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fallback.distill.corpus import Row

ROUND = 32
"""Lengths are padded to multiples of this many tokens, so that few shapes reach the kernels."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` (rows, length) int64; `weights` (rows, length) float32, the loss weight of each id.

    Padding is on the right, where a causal model cannot see it. `real_tokens` does not count it.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    real_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens processed, padding included."""
        return int(self.ids.numel())

    def places(self, multiple: int = 128) -> torch.Tensor:
        """Flat indices into (rows, length - 1) of the places whose next token has a weight.

        Their number is rounded up with places of weight 0, to keep shapes few.
        """
        weights = self.weights[:, 1:].flatten()
        wanted = -(-int((weights > 0).sum()) // multiple) * multiple
        return torch.argsort(weights, descending=True, stable=True)[:wanted].sort().values


def _round_up(length: int) -> int:
    return -(-length // ROUND) * ROUND


def pad(rows: Sequence[Row], pad_id: int) -> Batch:
    """One batch of these rows."""
    length = _round_up(max(len(ids) for ids, _ in rows))
    return Batch(
        ids=torch.tensor([[*ids, *[pad_id] * (length - len(ids))] for ids, _ in rows]),
        weights=torch.tensor([[*w, *[0.0] * (length - len(w))] for _, w in rows]),
        real_tokens=sum(len(ids) for ids, _ in rows),
    )


def pack(rows: Sequence[Row], max_tokens: int, pad_id: int, rng: random.Random) -> list[Batch]:
    """Batches of rows of similar length, in random order; no batch exceeds `max_tokens`.

    Only a row that is longer than `max_tokens` on its own makes a larger one.
    """
    made: list[Batch] = []
    chunk: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row[0])):
        if chunk and _round_up(len(row[0])) * (len(chunk) + 1) > max_tokens:
            made.append(pad(chunk, pad_id))
            chunk = []
        chunk.append(row)
    if chunk:
        made.append(pad(chunk, pad_id))
    rng.shuffle(made)
    return made


class Feed:
    """An endless, seeded stream of batches that workers share: each takes every n-th of a pool.

    `position` is (pool, batches taken from it by each worker): the same on all workers, and all
    that a checkpoint needs.
    """

    def __init__(
        self,
        rows: Callable[[int], Sequence[Row]],
        max_tokens: int,
        pad_id: int,
        seed: str,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        self._rows, self._max_tokens, self._pad_id = rows, max_tokens, pad_id
        self._seed, self._rank, self._workers = seed, rank, workers
        self._held: tuple[int, list[Batch]] | None = None
        self.position = (0, 0)

    def next(self) -> Batch:
        """The next batch of this worker."""
        pool, taken = self.position
        batches = self._load(pool)
        while taken >= len(batches):
            pool, taken = pool + 1, 0
            batches = self._load(pool)
        self.position = (pool, taken + 1)
        return batches[taken]

    def _load(self, pool: int) -> list[Batch]:
        if self._held is None or self._held[0] != pool:
            rng = random.Random(f"{self._seed}/{pool}")
            made = pack(self._rows(pool), self._max_tokens, self._pad_id, rng)
            even = max(1, len(made) // self._workers) * self._workers
            # A pool too small for all workers is read by each of them.
            shared = [made[n % len(made)] for n in range(even)]
            self._held = (pool, shared[self._rank :: self._workers])
        return self._held[1]
