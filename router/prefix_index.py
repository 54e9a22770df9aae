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
3. Under-claiming is allowed (a block stored behind one that is not confirmed is dropped);
   over-claiming is not.

Cost: lookups and dispatches visit the runs on the prompt's path, not its blocks (prefix_tree.py);
only confirmed blocks are listed one by one, because removals name them so. Block hashes should
be below 2**60 (``router.hashing``): CPython keeps such an int in 32 bytes instead of 48.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from router.held import Common, Held
from router.index_memory import IndexMemory, measure_index
from router.prefix_tree import Run, RunTree, View, match_length
from router.tiers import TierIndex

_NEVER_S = float("inf")
_CLAIMS_KEPT = 1024
#: A cache is full while its last eviction is no longer ago than this.
EVICTING_S = 60.0


class PrefixIndex:
    """Not thread-safe: one event loop owns it. Times are seconds on the caller's clock.

    ``predicted_ttl_s``: how long a dispatch is believed without an event that confirms it.
    ``few``: a beginning with more holders is kept as common to many (:mod:`router.held`).
    ``tiers``: what replicas keep outside their device.
    """

    def __init__(self, predicted_ttl_s: float = 30.0, few: int = 8) -> None:
        self.tiers = TierIndex()
        self._few = few
        self._ttl_s = predicted_ttl_s
        self._now_s = 0.0
        self._tree = RunTree()
        self._views: dict[str, View] = {}
        self._stale: set[str] = set()
        # Bits and depth → those replicas, each with that depth, for the combinations that lookups
        # met; forgotten with membership.
        self._claims: dict[tuple[int, int], dict[str, int]] = {}
        self._common, self._commons = Common({}), 0
        # The last lookup's prompt and runs: a dispatch of the same prompt follows it.
        self._last: tuple[Sequence[int], list[Run]] = ((), [])
        # (expires, view, prompt), soonest first.
        self._due: deque[tuple[float, View, tuple[int, ...]]] = deque()

    # -- membership -----------------------------------------------------------------------------

    def add_replica(self, replica_id: str, max_blocks: int, events: bool = True) -> None:
        """Begin an empty view; known replicas are left as they are."""
        if max_blocks < 1:
            raise ValueError(f"max_blocks of {replica_id} must be positive, not {max_blocks}")
        if replica_id in self._views:
            return
        taken, bit = sum(self._tree.bits.values()), 1
        while taken & bit:
            bit <<= 1
        self._tree.bits[replica_id] = bit
        self._views[replica_id] = View(replica_id, bit, max_blocks, events)
        self._forget_claims()

    def remove_replica(self, replica_id: str) -> None:
        """The replica is gone, and all it held."""
        self.cleared(replica_id)
        self.tiers.forget(replica_id)
        self._views.pop(replica_id, None)
        self._tree.bits.pop(replica_id, None)
        self._forget_claims()

    def blocks(self, replica_id: str) -> int:
        """Blocks indexed for a replica (0 for strangers)."""
        view = self._views.get(replica_id)
        return 0 if view is None else view.count

    def eviction_age_s(self, replica_id: str, now_s: float) -> float:
        """How long ago the replica's least recently used prefix was used: what it would lose
        next. Infinite while it has not evicted anything lately, so has space left."""
        view = self._views.get(replica_id)
        if view is None or now_s - view.evicted_s > EVICTING_S:
            return math.inf
        return now_s - next(iter(view.recency.values()), -math.inf)

    @property
    def stale(self) -> frozenset[str]:
        """Replicas of which nothing is claimed, because events of theirs are missing."""
        return frozenset(self._stale)

    def confirmed(self, replica_id: str) -> int | None:
        """Blocks that the replica's events told of, altogether. None: it has no events."""
        view = self._views.get(replica_id)
        return view.confirmed if view is not None and view.events else None

    def orphans(self, replica_id: str) -> int:
        """Stored blocks that were dropped because their parent was not confirmed."""
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
        view.confirmed += len(hashes)
        run, at = self._tree.root, 0
        if parent is not None:
            run_id = view.where.get(parent)
            if run_id is None:
                view.orphans += len(hashes)
                return
            run = self._tree.runs[run_id]
            at = 1 + run.position(parent, run.sure(replica_id) - 1)
        self._extend(view, run, at, tuple(hashes), None)
        # Churn lets a dict grow to 120 bytes an entry; a copy has 30 to 60.
        if sys.getsizeof(view.where) > 4096 + 62 * len(view.where):
            view.where = dict(view.where)

    def removed(self, replica_id: str, hashes: Iterable[int]) -> None:
        """The engine evicted these blocks, in any order."""
        view = self._views.get(replica_id)
        if view is None:
            return
        view.evicted_s = self._now_s
        where, runs = view.where, self._tree.runs
        # Run → lowest position removed; engines free tails first, so the next is one lower.
        cuts: dict[int, int] = {}
        for block in hashes:
            run_id = where.get(block)
            if run_id is not None:
                run = runs[run_id]
                lowest = cuts.get(run_id)
                if lowest is None:
                    cuts[run_id] = run.position(block, run.sure(replica_id) - 1)
                else:
                    cuts[run_id] = min(lowest, run.position(block, lowest - 1))
            elif view.guessed:
                self._refute(view, block)
        for run_id, lowest in cuts.items():
            if lowest < runs[run_id].holders.get(replica_id, 0):
                self._truncate(view, runs[run_id], lowest)

    def cleared(self, replica_id: str) -> None:
        """The engine dropped its whole cache (or lost track): an empty, fresh view."""
        view = self._views.get(replica_id)
        if view is None:
            return
        for run_id in view.recency:
            run = self._tree.runs[run_id]
            run.hold(replica_id, view.bit, 0)
            run.forget_guess(replica_id)
            self._tree.prune(run)
        view.where, view.recency, view.count = {}, OrderedDict(), 0
        view.guessed.clear()
        self._stale.discard(replica_id)

    def mark_stale(self, replica_id: str) -> None:
        """Events were lost: claim nothing until :meth:`resynced` or :meth:`cleared`."""
        if replica_id in self._views:
            self._stale.add(replica_id)

    def resynced(self, replica_id: str) -> None:
        """The lost events were replayed in order: the view is right again."""
        self._stale.discard(replica_id)

    # -- dispatch and lookup --------------------------------------------------------------------

    def dispatched(self, replica_id: str, hashes: tuple[int, ...], now_s: float) -> None:
        """A prompt with these blocks was sent to the replica, which will soon hold them."""
        view = self._views.get(replica_id)
        if view is None or not hashes:
            return
        self._now_s = now_s
        expires_s = now_s + self._ttl_s if view.events else _NEVER_S
        guesses = self._follow(view, hashes, expires_s)
        if guesses and view.events:
            self._due.append((expires_s, view, hashes))

    def lookup(self, hashes: Sequence[int], now_s: float) -> Held:
        """Replica id → leading blocks of the prompt it holds (absent: none)."""
        self._now_s = now_s
        if self._due and self._due[0][0] <= now_s:
            self.expire(now_s)
        held = self._walk(hashes)
        if self._stale:
            known = held.every.items()
            return Held.of({name: blocks for name, blocks in known if name not in self._stale})
        return held

    def expire(self, now_s: float) -> None:
        """Forget predictions that nothing confirmed in time. :meth:`lookup` does it by itself."""
        due = self._due
        while due and due[0][0] <= now_s:
            expires_s, view, hashes = due.popleft()
            if not view.guessed:
                continue
            path, run, depth = [], self._tree.root, 0
            while depth < len(hashes) and run.children:
                child = run.children.get(hashes[depth])
                if child is None:
                    break
                run = child
                path.append(run)
                depth += len(run.hashes)
            for run in reversed(path):
                guess = run.guesses.get(view.replica_id) if run.guesses else None
                if guess is not None and guess[1] <= expires_s:
                    self._truncate(view, run, guess[0])

    def memory(self) -> IndexMemory:
        """Measure the index: walks every run, for a metrics timer, not for a request."""
        return measure_index(self._tree, self._views.values())

    # -- inside ---------------------------------------------------------------------------------

    def _walk(self, hashes: Sequence[int]) -> Held:
        """Claims, going down; only who holds a run to its end stays for the next one."""
        common = self._common
        few: dict[str, int] = {}
        path: list[Run] = []
        depth, wanted, run = 0, len(hashes), self._tree.root
        complete = -1
        while depth < wanted and run.children:
            child = run.children.get(hashes[depth])
            if child is None:
                break
            run = child
            path.append(run)
            length = len(run.hashes)
            if depth + length <= wanted and hashes[depth + length - 1] == run.hashes[-1]:
                matched = length
            else:
                matched = match_length(run.hashes, 0, hashes, depth)
            here = complete & run.full
            ending = complete & ~here
            if ending:
                # Who goes on is in it too if they are many, and is told of again further down.
                common = self._told(common, few, complete, ending, depth)
                if len(run.holders) > run.full.bit_count():
                    self._partial(few, run, ending, depth, matched)
            complete = here
            depth += matched
            if not here or matched < length:
                break
        self._last = (hashes, path)
        return Held(self._told(common, few, complete, complete, depth), few)

    def _told(
        self, common: Common, few: dict[str, int], bits: int, ending: int, depth: int
    ) -> Common:
        """The holders of ``bits`` hold ``depth`` blocks, and those of ``ending`` no more: if these
        are few, they come into ``few``; else there is more that is common to many."""
        if not depth or not ending:
            return common
        if ending.bit_count() <= self._few:
            few.update(self._claims_of(ending, depth))
            return common
        return common.further.get((bits, depth)) or self._further(common, bits, depth)

    def _further(self, common: Common, bits: int, depth: int) -> Common:
        """``common`` with the holders of ``bits`` at ``depth``."""
        names = self._tree.bits.items()
        deeper = {name: depth for name, bit in names if bits & bit}
        self._commons += 1
        if self._commons > _CLAIMS_KEPT:
            self._common, self._commons = Common({}), 0
        found = common.further[bits, depth] = Common({**common.blocks, **deeper})
        return found

    def _forget_claims(self) -> None:
        self._claims.clear()
        self._common, self._commons = Common({}), 0

    def _partial(
        self, claims: dict[str, int], run: Run, among: int, depth: int, matched: int
    ) -> None:
        """Claims of those ``among`` the holders for whom ``run`` is the last one."""
        bits = self._tree.bits
        for name, held in run.holders.items():
            if among & bits[name]:
                claims[name] = depth + (held if held < matched else matched)

    def _claims_of(self, bits: int, depth: int) -> dict[str, int]:
        found = self._claims.get((bits, depth))
        if found is None:
            if len(self._claims) > _CLAIMS_KEPT:
                self._claims.clear()
            names = self._tree.bits.items()
            found = self._claims[bits, depth] = {name: depth for name, bit in names if bits & bit}
        return found

    def _follow(self, view: View, hashes: tuple[int, ...], expires_s: float) -> bool:
        """:meth:`_extend` from the prompt's start, along the last lookup's runs if it was for
        this prompt: what is held there already is passed over."""
        name, run, at, done = view.replica_id, self._tree.root, 0, 0
        guesses = False
        if hashes is self._last[0]:
            for known in self._last[1]:
                length = len(known.hashes)
                whole = (
                    done + length <= len(hashes) and hashes[done + length - 1] == known.hashes[-1]
                )
                if not whole or known.parent is not run:
                    break
                run, at, done = known, length, done + length
                if not known.full & view.bit or (known.guesses and name in known.guesses):
                    guesses |= self._claim(view, known, length, expires_s)
        return self._extend(view, run, at, hashes[done:], expires_s) | guesses

    def _extend(
        self, view: View, run: Run, at: int, hashes: tuple[int, ...], expires_s: float | None
    ) -> bool:
        """Make ``view`` hold ``hashes`` behind position ``at`` of ``run``; ``expires_s`` None
        confirms them. True if some of them are predictions now."""
        tree, done, count = self._tree, 0, len(hashes)
        guesses = False
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
            done += step
            at += step
            guesses |= self._claim(view, run, at, expires_s)
        self._touch(view, run)
        while view.count > view.max_blocks:
            self._evict(view)
        return guesses

    def _claim(self, view: View, run: Run, end: int, expires_s: float | None) -> bool:
        """``view`` holds ``run`` up to ``end``. True if a part of it is a prediction."""
        name, run_id = view.replica_id, run.run_id
        held = run.holders.get(name, 0)
        guess = run.guesses.get(name) if run.guesses else None
        sure, until_s = (held, 0.0) if guess is None else guess
        if expires_s is None:
            if end > sure:
                view.where.update(dict.fromkeys(run.hashes[sure:end], run_id))
                sure = end
        elif end >= held:
            # Were only a part dispatched again, the rest must not live longer for it.
            until_s = expires_s
        if end > held:
            run.hold(name, view.bit, end)
            view.count += end - held
            held = end
        if sure < held:
            if run.guesses is None:
                run.guesses = {}
            run.guesses[name] = (sure, until_s)
            view.guessed.add(run_id)
            return True
        if guess is not None:
            run.forget_guess(name)
            view.guessed.discard(run_id)
        return False

    def _truncate(self, view: View, run: Run, length: int) -> None:
        """``view`` holds only ``run[:length]`` from now on (less than before)."""
        name, where = view.replica_id, view.where
        sure = run.sure(name)
        for block in run.hashes[length:sure]:
            # Absent only if two prefixes share a key (2**-60 a pair): no reason to fail then.
            where.pop(block, None)
        view.count -= run.holders[name] - length
        if length <= sure and run.guesses is not None:
            run.forget_guess(name)
            view.guessed.discard(run.run_id)
        run.hold(name, view.bit, length)
        if not length:
            del view.recency[run.run_id]
        self._tree.prune(run)

    def _refute(self, view: View, block: int) -> None:
        """A removal of a block that is not confirmed: it may be one we only predicted."""
        for run_id in view.guessed:
            run = self._tree.runs[run_id]
            if block in run.hashes[run.sure(view.replica_id) : run.holders[view.replica_id]]:
                self._truncate(view, run, run.hashes.index(block))
                return

    def _evict(self, view: View) -> None:
        """Cut the least recently used run by what is too much. Its holder holds nothing behind
        it: a use moves the deepest run first and the prompt's start last (see _touch)."""
        run = self._tree.runs[next(iter(view.recency))]
        excess = view.count - view.max_blocks
        self._truncate(view, run, max(0, run.holders[view.replica_id] - excess))

    def _touch(self, view: View, run: Run) -> None:
        recency, name, now_s = view.recency, view.replica_id, self._now_s
        above: Run | None = run
        while above is not None and above.run_id:
            if name in above.holders:
                recency[above.run_id] = now_s
                recency.move_to_end(above.run_id)
            above = above.parent

    def _cut(self, run: Run, at: int) -> None:
        tail = self._tree.cut(run, at)
        if tail is None:
            return
        for name in tail.holders:
            view = self._views[name]
            view.where.update(dict.fromkeys(tail.hashes[: tail.sure(name)], tail.run_id))
            if tail.guesses and name in tail.guesses:
                view.guessed.add(tail.run_id)
            if not run.guesses or name not in run.guesses:
                view.guessed.discard(run.run_id)
            self._touch(view, tail)
