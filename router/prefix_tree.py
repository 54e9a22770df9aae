"""Runs of KV blocks: the compressed tree under the prefix index.

Every block hash is chained, so it names its whole prefix: equal hashes at depth *i* mean equal
blocks before *i*. Blocks that follow each other without a fork are therefore kept as one *run*
(a radix tree's edge, as in SGLang's RadixAttention), and each holder of a run is one number: how
many of the run's leading blocks it holds. Whatever a lookup says is read from those numbers, so a
removal in the middle cuts the holder there and nothing behind it can be claimed any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Longest run that still grows in place (growing copies a tuple of 8-byte references).
MAX_RUN_BLOCKS = 1024


class Run:
    """Consecutive blocks without a fork. ``holders``: replica → leading blocks held, at least 1.

    ``full`` has the bit of every holder that holds the run to its end (see
    :class:`RunTree.bits`), so that a lookup goes down by one AND a run and not by one step a
    holder.
    """

    __slots__ = ("children", "full", "guesses", "hashes", "holders", "parent", "run_id")

    def __init__(self, run_id: int, parent: Run | None, hashes: tuple[int, ...]) -> None:
        self.run_id = run_id
        self.parent = parent
        self.hashes = hashes
        self.holders: dict[str, int] = {}
        self.full = 0
        # replica → (how many of the held blocks are confirmed, when the others expire); present
        # only where a part of what is held is a prediction.
        self.guesses: dict[str, tuple[int, float]] | None = None
        # first block → the run behind this one; None until there is one.
        self.children: dict[int, Run] | None = None

    def hold(self, replica_id: str, bit: int, length: int) -> None:
        """``replica_id`` holds ``length`` leading blocks from now on (0: none)."""
        if length:
            self.holders[replica_id] = length
        else:
            del self.holders[replica_id]
        if length == len(self.hashes):
            self.full |= bit
        else:
            self.full &= ~bit

    def forget_guess(self, replica_id: str) -> None:
        """All that ``replica_id`` holds is confirmed, or it holds nothing."""
        if self.guesses is not None:
            self.guesses.pop(replica_id, None)
            if not self.guesses:
                self.guesses = None

    def sure(self, replica_id: str) -> int:
        """How many of the run's leading blocks events have confirmed for a replica."""
        guess = self.guesses.get(replica_id) if self.guesses else None
        return self.holders.get(replica_id, 0) if guess is None else guess[0]

    def position(self, block: int, hint: int) -> int:
        """Where ``block`` stands in the run; ``hint`` is tried first (engines free tails first).

        Raises:
            ValueError: the run has no such block.
        """
        if 0 <= hint < len(self.hashes) and self.hashes[hint] == block:
            return hint
        return self.hashes.index(block)


@dataclass(slots=True)
class View:
    """What one replica holds: ``count`` blocks, of which ``where`` lists the confirmed ones
    (block → run id). ``recency``: ids of all runs held, oldest use first, and when that was.
    ``guessed``: ids of those that are partly predictions. ``evicted_s``: of the last removal.
    ``confirmed``: blocks that events told of, altogether."""

    replica_id: str
    bit: int
    max_blocks: int
    events: bool
    count: int = 0
    where: dict[int, int] = field(default_factory=dict)
    recency: OrderedDict[int, float] = field(default_factory=OrderedDict)
    guessed: set[int] = field(default_factory=set)
    orphans: int = 0
    evicted_s: float = float("-inf")
    confirmed: int = 0


def match_length(run: Sequence[int], at: int, hashes: Sequence[int], start: int) -> int:
    """How many of ``hashes[start:]`` continue ``run[at:]``, by bisection (the chain property)."""
    longest = min(len(run) - at, len(hashes) - start)
    if longest <= 0 or run[at] != hashes[start]:
        return 0
    if run[at + longest - 1] == hashes[start + longest - 1]:
        return longest
    low, high = 1, longest - 1
    while low < high:
        middle = (low + high + 1) // 2
        if run[at + middle - 1] == hashes[start + middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low


class RunTree:
    """All runs of all replicas. Knows structure only: forks, growth, pruning."""

    def __init__(self) -> None:
        self.root = Run(0, None, ())
        self.runs: dict[int, Run] = {}
        #: replica → its bit in :attr:`Run.full`; kept by the index
        self.bits: dict[str, int] = {}
        self._next_id = 1

    def append(self, run: Run, hashes: tuple[int, ...]) -> tuple[Run, int]:
        """Put new blocks behind ``run``; returns the run they are in and where they begin."""
        grows = run is not self.root and not run.children
        if grows and len(run.hashes) + len(hashes) <= MAX_RUN_BLOCKS:
            begin = len(run.hashes)
            run.hashes += hashes
            run.full = 0
            return run, begin
        return self._attach(run, hashes), 0

    def cut(self, run: Run, at: int) -> Run | None:
        """End ``run`` at block ``at``, so that another run can fork there.

        What is behind ``at`` becomes a child run, which is returned (the caller repoints what it
        keeps by run id), or is dropped when nobody holds it.
        """
        children, rest = run.children, run.hashes[at:]
        run.hashes, run.children = run.hashes[:at], None
        behind = {name: held - at for name, held in run.holders.items() if held > at}
        if not behind and not children:
            self._gauge(run)
            return None
        tail = self._attach(run, rest)
        tail.children = children
        for child in (children or {}).values():
            child.parent = tail
        tail.holders = behind
        for name in behind:
            run.holders[name] = at
        self._gauge(run)
        self._gauge(tail)
        _split_guesses(run, tail, at)
        return tail

    def prune(self, run: Run) -> None:
        """Drop what nobody holds: unheld childless runs upwards, long unheld tails."""
        while not run.holders and not run.children and run.parent is not None:
            parent = run.parent
            assert parent.children is not None
            del parent.children[run.hashes[0]]
            del self.runs[run.run_id]
            run.parent = None
            run = parent
        if run.holders and not run.children:
            longest = max(run.holders.values())
            # Cutting copies the rest, so it waits until a quarter of the run is unheld.
            if 4 * longest <= 3 * len(run.hashes):
                run.hashes = run.hashes[:longest]
                self._gauge(run)

    def _gauge(self, run: Run) -> None:
        """Find out anew who holds ``run`` to its end, after its end moved."""
        bits, length = self.bits, len(run.hashes)
        run.full = sum(bits[name] for name, held in run.holders.items() if held == length)

    def _attach(self, parent: Run, hashes: tuple[int, ...]) -> Run:
        run = Run(self._next_id, parent, hashes)
        self._next_id += 1
        self.runs[run.run_id] = run
        if parent.children is None:
            parent.children = {}
        parent.children[hashes[0]] = run
        return run


def _split_guesses(run: Run, tail: Run, at: int) -> None:
    if run.guesses is None:
        return
    kept: dict[str, tuple[int, float]] = {}
    moved: dict[str, tuple[int, float]] = {}
    for name, (sure, expires_s) in run.guesses.items():
        if sure < at:
            kept[name] = (sure, expires_s)
        if name in tail.holders:
            moved[name] = (max(0, sure - at), expires_s)
    run.guesses = kept or None
    tail.guesses = moved or None
