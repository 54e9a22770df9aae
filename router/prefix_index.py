"""The prefix index: which replica holds how much of a prompt's KV, for all replicas in one call.

Two sources. *Confirmed* blocks come from the engine's KV events (:meth:`PrefixIndex.stored`,
:meth:`~PrefixIndex.removed`, :meth:`~PrefixIndex.cleared`). *Predicted* blocks are those of the
prompts we dispatched; they expire unless an event confirms them in time. A replica without events
(``events=False``) is believed to keep what it was sent until its LRU bound pushes it out.

Invariants (tests/property/test_prefix_index.py holds them against a naive model):

1. A lookup claims *k* blocks of a replica only if each of the prompt's first *k* blocks was
   stored by, or dispatched to, that replica, and none was removed, cleared, expired or evicted
   since. In particular: never a block after its removal event, in whatever order removals come.
2. A replica never has more than ``max_blocks`` blocks indexed; the least recently used run loses
   its tail first, so what is left stays a prefix.
3. Under-claiming is allowed (a block stored behind one we do not know is dropped); over-claiming
   is not.

Cost: a lookup visits the runs on the prompt's path, not its blocks (see prefix_tree.py); bulk
inserts are dict updates in C. Block hashes should be below 2**60 (``router.hashing``): CPython
then stores one in 32 bytes instead of 48.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from router.prefix_tree import Run, RunTree, match_length


@dataclass(slots=True)
class _View:
    """What one replica holds. ``where``: block → run id; ``recency``: run ids, oldest first."""

    replica_id: str
    slot: int
    max_blocks: int
    events: bool
    where: dict[int, int] = field(default_factory=dict)
    recency: OrderedDict[int, None] = field(default_factory=OrderedDict)
    stale: bool = False
    orphans: int = 0


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


class PrefixIndex:
    """Not thread-safe: one event loop owns it. Times are seconds on the caller's clock.

    ``predicted_ttl_s``: how long a dispatch is believed without an event that confirms it.
    """

    def __init__(self, predicted_ttl_s: float = 30.0) -> None:
        self._ttl_s = predicted_ttl_s
        self._tree = RunTree()
        self._views: dict[str, _View] = {}
        self._by_slot: list[_View | None] = []
        # (expires, view, prompt, index of its first predicted block), soonest first.
        self._due: deque[tuple[float, _View, tuple[int, ...], int]] = deque()

    # -- membership -----------------------------------------------------------------------------

    def add_replica(self, replica_id: str, max_blocks: int, events: bool = True) -> None:
        """Begin an empty view; known replicas are left as they are."""
        if replica_id in self._views:
            return
        if max_blocks < 1:
            raise ValueError(f"max_blocks of {replica_id} must be positive, not {max_blocks}")
        free = next((i for i, view in enumerate(self._by_slot) if view is None), None)
        slot = len(self._by_slot) if free is None else free
        view = _View(replica_id, slot, max_blocks, events)
        self._views[replica_id] = view
        if free is None:
            self._by_slot.append(view)
        else:
            self._by_slot[free] = view

    def remove_replica(self, replica_id: str) -> None:
        """The replica is gone, and all it held."""
        view = self._views.get(replica_id)
        if view is None:
            return
        self._clear(view)
        del self._views[replica_id]
        self._by_slot[view.slot] = None

    def blocks(self, replica_id: str) -> int:
        """Blocks indexed for a replica (0 for strangers)."""
        view = self._views.get(replica_id)
        return 0 if view is None else len(view.where)

    def orphans(self, replica_id: str) -> int:
        """Stored blocks that were dropped because their parent was not indexed."""
        view = self._views.get(replica_id)
        return 0 if view is None else view.orphans

    # -- events ---------------------------------------------------------------------------------

    def stored(self, replica_id: str, hashes: Sequence[int], parent: int | None = None) -> None:
        """The engine cached ``hashes``, consecutive blocks behind block ``parent`` (None: the
        prompt's start). Blocks behind an unknown parent cannot be part of a known prefix and
        are dropped."""
        view = self._views.get(replica_id)
        if view is None or not hashes:
            return
        run, at = self._tree.root, 0
        if parent is not None:
            run_id = view.where.get(parent)
            if run_id is None:
                view.orphans += len(hashes)
                return
            run = self._tree.runs[run_id]
            at = 1 + run.position(parent, run.holders[view.slot] - 1)
        self._extend(view, run, at, tuple(hashes), None)

    def removed(self, replica_id: str, hashes: Iterable[int]) -> None:
        """The engine evicted these blocks, in any order."""
        view = self._views.get(replica_id)
        if view is None:
            return
        where, runs, slot = view.where, self._tree.runs, view.slot
        for block in hashes:
            run_id = where.get(block)
            if run_id is not None:
                run = runs[run_id]
                self._truncate(view, run, run.position(block, run.holders[slot] - 1))

    def cleared(self, replica_id: str) -> None:
        """The engine dropped its whole cache (or lost track): an empty, fresh view."""
        view = self._views.get(replica_id)
        if view is not None:
            self._clear(view)
            view.stale = False

    def mark_stale(self, replica_id: str) -> None:
        """Events were lost: claim nothing until :meth:`resynced` or :meth:`cleared`."""
        view = self._views.get(replica_id)
        if view is not None:
            view.stale = True

    def resynced(self, replica_id: str) -> None:
        """The lost events were replayed in order: the view is right again."""
        view = self._views.get(replica_id)
        if view is not None:
            view.stale = False

    # -- dispatch and lookup --------------------------------------------------------------------

    def dispatched(self, replica_id: str, hashes: tuple[int, ...], now_s: float) -> None:
        """A prompt with these blocks was sent to the replica, which will soon hold them."""
        view = self._views.get(replica_id)
        if view is None or not hashes:
            return
        expires_s = now_s + self._ttl_s if view.events else None
        first = self._extend(view, self._tree.root, 0, hashes, expires_s)
        if expires_s is not None and first is not None:
            self._due.append((expires_s, view, hashes, first))

    def lookup(self, hashes: Sequence[int], now_s: float) -> dict[str, int]:
        """Replica id → leading blocks of the prompt it holds (absent: none)."""
        if self._due and self._due[0][0] <= now_s:
            self.expire(now_s)
        claims = self._walk(hashes)
        views = self._by_slot
        found: dict[str, int] = {}
        for slot, blocks in claims.items():
            view = views[slot]
            if view is not None and not view.stale:
                found[view.replica_id] = blocks
        return found

    def expire(self, now_s: float) -> None:
        """Forget predictions that nothing confirmed in time. :meth:`lookup` does it by itself."""
        due, runs = self._due, self._tree.runs
        while due and due[0][0] <= now_s:
            expires_s, view, hashes, at = due.popleft()
            where, slot = view.where, view.slot
            while at < len(hashes):
                run_id = where.get(hashes[at])
                if run_id is None:
                    at += 1
                    continue
                run = runs[run_id]
                position = run.position(hashes[at], 0)
                at += match_length(run.hashes, position, hashes, at)
                state = run.confirmed.get(slot) if run.confirmed else None
                if state is not None and state[1] <= expires_s:
                    self._truncate(view, run, state[0])

    def memory(self) -> IndexMemory:
        """Measure the index: walks every run, for a metrics timer, not for a request."""
        runs = self._tree.runs.values()
        keys = {id(block): block for run in runs for block in run.hashes}
        size = sys.getsizeof
        total = sum(map(size, keys.values())) + size(self._tree.runs)
        for view in self._views.values():
            total += size(view.where) + size(view.recency)
        for run in runs:
            total += size(run) + size(run.hashes) + size(run.holders) + size(run.run_id)
            total += size(run.children) if run.children else 0
        pairs = sum(len(view.where) for view in self._views.values())
        return IndexMemory(pairs, len(self._tree.runs), total)

    # -- inside ---------------------------------------------------------------------------------

    def _walk(self, hashes: Sequence[int]) -> dict[int, int]:
        """Slot → claimed blocks. Only those that hold a run to its end stay for the next one."""
        claims: dict[int, int] = {}
        depth, wanted = 0, len(hashes)
        run = self._tree.root
        complete: dict[int, int] | None = None
        while depth < wanted and run.children:
            child = run.children.get(hashes[depth])
            if child is None:
                break
            run = child
            matched = match_length(run.hashes, 0, hashes, depth)
            holders = run.holders
            if complete is None:
                here = holders
            elif len(holders) < len(complete):
                here = {slot: held for slot, held in holders.items() if slot in complete}
            else:
                here = {slot: holders[slot] for slot in complete if slot in holders}
            for slot, held in here.items():
                claims[slot] = depth + (held if held < matched else matched)
            if matched < len(run.hashes):
                break
            complete = {slot: held for slot, held in here.items() if held >= matched}
            depth += matched
        return claims

    def _extend(
        self,
        view: _View,
        run: Run,
        at: int,
        hashes: tuple[int, ...],
        expires_s: float | None,
    ) -> int | None:
        """Make ``view`` hold ``hashes`` behind position ``at`` of ``run``; ``expires_s`` None
        confirms them. Returns the index of the first block that is not confirmed."""
        tree, done, count = self._tree, 0, len(hashes)
        first: int | None = None
        while done < count:
            step = match_length(run.hashes, at, hashes, done)
            if step == 0:
                if at < len(run.hashes):
                    self._cut(run, at)
                child = run.children.get(hashes[done]) if run.children else None
                if child is not None:
                    run, at = child, 0
                    continue
                run, at = tree.append(run, hashes[done:])
                step = count - done
            sure = self._claim(view, run, at, at + step, expires_s)
            if first is None and sure < at + step:
                first = done + max(0, sure - at)
            done += step
            at += step
        self._touch(view, run)
        while len(view.where) > view.max_blocks:
            self._evict(view)
        # Dicts grow to three times their live size after churn: give that back.
        if sys.getsizeof(view.where) > 4096 + 72 * len(view.where):
            view.where = dict(view.where)
        return first

    def _claim(self, view: _View, run: Run, begin: int, end: int, expires_s: float | None) -> int:
        """``view`` holds ``run`` up to ``end`` (it held ``begin`` already, or begins at 0).
        Returns how many of the run's blocks are now confirmed."""
        slot = view.slot
        held = run.holders.get(slot, 0)
        if end > held:
            view.where.update(dict.fromkeys(run.hashes[held:end], run.run_id))
            run.holders[slot] = end
        state = run.confirmed.get(slot) if run.confirmed else None
        sure = held if state is None else state[0]
        if expires_s is None:
            if begin <= sure:
                sure = max(sure, end)
            until_s = state[1] if state is not None else 0.0
        elif end >= held or state is None:
            until_s = expires_s
        else:
            # Only a part was dispatched again: the rest must not live longer for it.
            until_s = state[1]
        if sure < run.holders[slot]:
            if run.confirmed is None:
                run.confirmed = {}
            run.confirmed[slot] = (sure, until_s)
        elif state is not None:
            self._forget_prediction(run, slot)
        return sure

    def _truncate(self, view: _View, run: Run, length: int) -> None:
        """``view`` holds only ``run[:length]`` from now on."""
        slot = view.slot
        held = run.holders[slot]
        where = view.where
        for block in run.hashes[length:held]:
            del where[block]
        if length:
            run.holders[slot] = length
        else:
            del run.holders[slot]
            del view.recency[run.run_id]
        if run.confirmed is not None and slot in run.confirmed:
            sure, _ = run.confirmed[slot]
            if length <= sure:
                self._forget_prediction(run, slot)
        self._tree.prune(run)

    def _evict(self, view: _View) -> None:
        """Cut the least recently used run by what is too much. Its holder holds nothing behind
        it: a use moves the deepest run first and the prompt's start last (see _touch)."""
        run = self._tree.runs[next(iter(view.recency))]
        excess = len(view.where) - view.max_blocks
        self._truncate(view, run, max(0, run.holders[view.slot] - excess))

    def _touch(self, view: _View, run: Run) -> None:
        recency = view.recency
        above: Run | None = run
        while above is not None and above.run_id:
            if view.slot in above.holders:
                recency[above.run_id] = None
                recency.move_to_end(above.run_id)
            above = above.parent

    def _cut(self, run: Run, at: int) -> None:
        tail = self._tree.cut(run, at)
        if tail is None:
            return
        for slot, held in tail.holders.items():
            view = self._by_slot[slot]
            assert view is not None
            view.where.update(dict.fromkeys(tail.hashes[:held], tail.run_id))
            self._touch(view, tail)

    def _clear(self, view: _View) -> None:
        for run_id in list(view.recency):
            run = self._tree.runs[run_id]
            del run.holders[view.slot]
            self._forget_prediction(run, view.slot)
            self._tree.prune(run)
        view.where, view.recency = {}, OrderedDict()

    @staticmethod
    def _forget_prediction(run: Run, slot: int) -> None:
        if run.confirmed is not None:
            run.confirmed.pop(slot, None)
            if not run.confirmed:
                run.confirmed = None
