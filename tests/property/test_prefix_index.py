"""The prefix index against a naive model: never over-claims, is exact where it promises to be,
keeps its bound, and its bookkeeping agrees with itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.prefix_index import PrefixIndex

REPLICAS = ("a", "b", "c")
TTL_S = 10.0
MAX_BLOCKS = 12

# A prompt is a path in a small binary tree; a block's hash names its whole path.
paths = st.lists(st.integers(0, 1), min_size=1, max_size=8)
replicas = st.sampled_from(REPLICAS)


def chain(path: list[int]) -> tuple[int, ...]:
    block, hashes = 1, []
    for turn in path:
        block = block * 2 + turn
        hashes.append(block)
    return tuple(hashes)


@dataclass
class Naive:
    """What may be claimed of one replica: block → when the claim ends (inf: confirmed)."""

    held: dict[int, float] = field(default_factory=dict)
    stale: bool = False

    def prefix(self, hashes: tuple[int, ...], now_s: float) -> int:
        if self.stale:
            return 0
        for i, block in enumerate(hashes):
            if self.held.get(block, -1.0) <= now_s:
                return i
        return len(hashes)


class IndexMachine(RuleBasedStateMachine):
    max_blocks = MAX_BLOCKS
    few = 1

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.index = PrefixIndex(predicted_ttl_s=TTL_S, few=self.few)
        self.naive = {name: Naive() for name in REPLICAS}
        for name in REPLICAS:
            self.index.add_replica(name, self.max_blocks)

    @rule(name=replicas, path=paths, start=st.integers(0, 7), whole=st.booleans())
    def stored(self, name: str, path: list[int], start: int, whole: bool) -> None:
        hashes = chain(path)
        start = 0 if whole else min(start, len(hashes) - 1)
        parent = hashes[start - 1] if start else None
        self.index.stored(name, hashes[start:], parent)
        self.naive[name].held.update(dict.fromkeys(hashes[start:], float("inf")))

    @rule(name=replicas, path=paths)
    def dispatched(self, name: str, path: list[int]) -> None:
        hashes = chain(path)
        self.index.dispatched(name, hashes, self.now_s)
        held = self.naive[name].held
        for block in hashes:
            held[block] = max(held.get(block, 0.0), self.now_s + TTL_S)

    @rule(name=replicas, path=paths, which=st.sets(st.integers(0, 7), max_size=4))
    def removed(self, name: str, path: list[int], which: set[int]) -> None:
        hashes = chain(path)
        gone = [hashes[i] for i in which if i < len(hashes)]
        self.index.removed(name, gone)
        for block in gone:
            self.naive[name].held.pop(block, None)

    @rule(name=replicas)
    def cleared(self, name: str) -> None:
        self.index.cleared(name)
        self.naive[name] = Naive()

    @rule(name=replicas)
    def gap(self, name: str) -> None:
        self.index.mark_stale(name)
        self.naive[name].stale = True

    @rule(name=replicas)
    def replayed(self, name: str) -> None:
        self.index.resynced(name)
        self.naive[name].stale = False

    @rule(name=replicas)
    def restarted(self, name: str) -> None:
        self.index.remove_replica(name)
        self.index.add_replica(name, self.max_blocks)
        self.naive[name] = Naive()

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(name=replicas, path=paths)
    def looked_up_and_dispatched(self, name: str, path: list[int]) -> None:
        hashes = chain(path)
        self.index.lookup(hashes, self.now_s)
        self.index.dispatched(name, hashes, self.now_s)
        held = self.naive[name].held
        for block in hashes:
            held[block] = max(held.get(block, 0.0), self.now_s + TTL_S)

    @rule(path=paths)
    def lookup(self, path: list[int]) -> None:
        hashes = chain(path)
        claims = self.index.lookup(hashes, self.now_s)
        for name in REPLICAS:
            assert claims.get(name, 0) <= self.naive[name].prefix(hashes, self.now_s)

    @invariant()
    def bounded(self) -> None:
        for name in REPLICAS:
            assert self.index.blocks(name) <= self.max_blocks

    @invariant()
    def consistent(self) -> None:
        tree = self.index._tree
        for name, view in self.index._views.items():
            mine = [run for run in tree.runs.values() if name in run.holders]
            assert view.count == sum(run.holders[name] for run in mine)
            assert set(view.recency) == {run.run_id for run in mine}
            assert view.guessed == {run.run_id for run in mine if name in (run.guesses or {})}
            sure = {block: run.run_id for run in mine for block in run.hashes[: run.sure(name)]}
            assert view.where == sure
        for run in tree.runs.values():
            assert run.holders or run.children, "a run nobody needs was kept"
            whole = [name for name, held in run.holders.items() if held == len(run.hashes)]
            assert run.full == sum(tree.bits[name] for name in whole)
            assert run.parent is not None
            assert run.parent.children is not None
            assert run.parent.children[run.hashes[0]] is run
            for name, (sure_blocks, _) in (run.guesses or {}).items():
                assert sure_blocks < run.holders[name] <= len(run.hashes)

    @precondition(lambda self: self.now_s > 50.0)
    @rule()
    def nothing_predicted_outlives_its_time(self) -> None:
        self.now_s += 2 * TTL_S
        self.index.expire(self.now_s)
        assert all(not run.guesses for run in self.index._tree.runs.values())


class UnboundedIndexMachine(IndexMachine):
    max_blocks = 10_000
    few = 0


TestBoundedIndex = IndexMachine.TestCase
TestBoundedIndex.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestUnboundedIndex = UnboundedIndexMachine.TestCase
TestUnboundedIndex.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


steps = st.lists(
    st.tuples(st.sampled_from(["stored", "dispatched", "evict-leaf"]), replicas, paths),
    max_size=40,
)


@given(steps=steps, asked=st.lists(paths, min_size=1, max_size=10))
@settings(deadline=None)
def test_exact_when_blocks_leave_tail_first(
    steps: list[tuple[str, str, list[int]]], asked: list[list[int]]
) -> None:
    """An engine that frees tails first is mirrored exactly, not only safely."""
    index = PrefixIndex(predicted_ttl_s=TTL_S)
    naive = {name: Naive() for name in REPLICAS}
    for name in REPLICAS:
        index.add_replica(name, 10_000)
    for kind, name, path in steps:
        hashes, model = chain(path), naive[name]
        if kind == "stored":
            index.stored(name, hashes)
            model.held.update(dict.fromkeys(hashes, float("inf")))
        elif kind == "dispatched":
            index.dispatched(name, hashes, 0.0)
            for block in hashes:
                model.held.setdefault(block, TTL_S)
        else:
            held = model.prefix(hashes, 0.0)
            leaf = hashes[held - 1] if held else 0
            if held and 2 * leaf not in model.held and 2 * leaf + 1 not in model.held:
                index.removed(name, [leaf])
                del model.held[leaf]
    for path in asked:
        hashes = chain(path)
        expected = {n: m.prefix(hashes, 0.0) for n, m in naive.items() if m.prefix(hashes, 0.0)}
        assert index.lookup(hashes, 0.0) == expected
