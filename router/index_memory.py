"""How large the prefix index is, measured object by object."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from router.prefix_tree import RunTree, View


@dataclass(frozen=True, slots=True)
class IndexMemory:
    """Measured size. ``pairs``: indexed (block, replica) pairs, all replicas together."""

    pairs: int
    runs: int
    total_bytes: int

    @property
    def bytes_per_pair(self) -> float:
        """Bytes per indexed block and replica (0 when empty)."""
        return self.total_bytes / self.pairs if self.pairs else 0.0


def measure_index(tree: RunTree, views: Iterable[View]) -> IndexMemory:
    """Sum of ``sys.getsizeof`` over every part, each hash value counted once."""
    size, runs = sys.getsizeof, tree.runs.values()
    keys = {id(block): size(block) for run in runs for block in run.hashes}
    total, pairs = sum(keys.values()) + size(tree.runs), 0
    for view in views:
        total += size(view.where) + size(view.recency) + size(view.guessed)
        pairs += view.count
    for run in runs:
        total += size(run) + size(run.hashes) + size(run.holders) + size(run.run_id)
        total += size(run.children) if run.children else 0
        total += size(run.guesses) if run.guesses else 0
    return IndexMemory(pairs, len(runs), total)
