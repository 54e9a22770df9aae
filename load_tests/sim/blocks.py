"""An engine's KV blocks, with vLLM's prefix cache semantics.

Only full blocks are shared; a freed block keeps its content until the block is needed; blocks
are reused least recently freed first, and a sequence's tail before its head (vLLM 0.29,
``v1/core/block_pool.py``). Two differences, both to keep it fast: when two sequences compute the
same block at once, vLLM keeps both copies and this pool one; blocks nobody can ask for again
(decoded tokens, prompts without hashes) lie in the queue as one entry per sequence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

KvOp = tuple[bool, tuple[int, ...], int | None]
"""(stored, hashes, parent): consecutive blocks that appeared behind block ``parent`` (None: at a
prompt's start), or blocks that disappeared; in the order it happened."""


class BlockPool:
    """``total`` blocks. ``log`` collects what appeared and disappeared, when it is a list."""

    __slots__ = ("_anonymous", "_cached", "_queue", "_queued", "_used", "log", "total")

    def __init__(self, total: int, log: bool = False) -> None:
        self.total = total
        self.log: list[KvOp] | None = [] if log else None
        self._cached: dict[int, int] = {}  # hash -> sequences that use it; 0: in the queue
        self._queue: OrderedDict[int, int] = OrderedDict()  # first: reused first; -> blocks
        self._queued = 0
        self._used = 0
        self._anonymous = 0

    @property
    def used(self) -> int:
        """Blocks that running sequences hold."""
        return self._used

    @property
    def available(self) -> int:
        """Blocks that can be had now: empty ones and cached ones nobody uses."""
        return self.total - self._used

    @property
    def cached(self) -> int:
        """Hashed blocks held, used or not."""
        return len(self._cached)

    def __contains__(self, block_hash: int) -> bool:
        return block_hash in self._cached

    def match(self, hashes: Sequence[int]) -> int:
        """How many leading blocks are held."""
        cached = self._cached
        count = 0
        for block_hash in hashes:
            if block_hash not in cached:
                break
            count += 1
        return count

    def resting(self, hashes: Sequence[int]) -> int:
        """How many of these held blocks no sequence uses (taking them costs a free block)."""
        cached = self._cached
        return sum(1 for block_hash in hashes if not cached[block_hash])

    def take(self, hashes: Sequence[int]) -> None:
        """A sequence uses these held blocks."""
        cached = self._cached
        queue = self._queue
        for block_hash in hashes:
            users = cached[block_hash]
            if not users:
                del queue[block_hash]
                self._queued -= 1
                self._used += 1
            cached[block_hash] = users + 1

    def allocate(self, blocks: int) -> None:
        """A sequence takes ``blocks`` new ones; cached content is dropped as needed.

        Raises:
            RuntimeError: there are not that many (callers ask ``available`` first).
        """
        self._used += blocks
        short = self._used + self._queued - self.total
        if short > 0:
            self._drop(short)

    def store(self, hashes: Sequence[int], parent: int | None = None) -> None:
        """Allocated blocks are full now and can be shared under these hashes."""
        cached = self._cached
        new: list[int] = []
        for block_hash in hashes:
            users = cached.get(block_hash)
            if users is None:
                cached[block_hash] = 1
                new.append(block_hash)
                continue
            if users:
                self._used -= 1
            else:
                del self._queue[block_hash]
                self._queued -= 1
            cached[block_hash] = users + 1
            self._log_stored(new, parent)
            new, parent = [], block_hash
        self._log_stored(new, parent)

    def _log_stored(self, hashes: list[int], parent: int | None) -> None:
        if hashes and self.log is not None:
            self.log.append((True, tuple(hashes), parent))

    def release(self, hashes: Sequence[int], rest: int, rest_full: int = 0) -> None:
        """A sequence ends: ``hashes`` are its shared blocks, ``rest`` the others, of which
        ``rest_full`` are full and stay cached although nobody will ask for them."""
        self._used -= rest
        if rest_full:
            self._anonymous -= 1
            self._queue[self._anonymous] = rest_full
            self._queued += rest_full
        cached = self._cached
        queue = self._queue
        freed = 0
        for block_hash in reversed(hashes):
            users = cached[block_hash] - 1
            cached[block_hash] = users
            if not users:
                queue[block_hash] = 1
                freed += 1
        self._used -= freed
        self._queued += freed

    def _drop(self, blocks: int) -> None:
        queue = self._queue
        dropped = []
        while blocks > 0:
            if not queue:
                raise RuntimeError("more KV blocks were allocated than there are")
            key, weight = queue.popitem(last=False)
            if weight > blocks:
                queue[key] = weight - blocks
                queue.move_to_end(key, last=False)
                weight = blocks
            elif key >= 0:
                del self._cached[key]
                dropped.append(key)
            self._queued -= weight
            blocks -= weight
        if dropped and self.log is not None:
            self.log.append((False, tuple(dropped), None))
