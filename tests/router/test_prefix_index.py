"""The prefix index, case by case (tests/property holds it against a model)."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from router.prefix_index import EVICTING_S, PrefixIndex
from router.prefix_tree import MAX_RUN_BLOCKS, match_length

TTL_S = 10.0


def index_of(*names: str, events: bool = True, max_blocks: int = 100_000) -> PrefixIndex:
    index = PrefixIndex(predicted_ttl_s=TTL_S)
    for name in names:
        index.add_replica(name, max_blocks, events=events)
    return index


def test_one_lookup_answers_for_all_replicas() -> None:
    index = index_of("a", "b", "c")
    index.stored("a", range(1, 9))
    index.stored("b", range(1, 4))
    index.stored("c", [1, 2, 30, 31])
    assert index.lookup(range(1, 20), 0.0) == {"a": 8, "b": 3, "c": 2}
    assert index.lookup([1, 2, 30, 31, 32], 0.0) == {"a": 2, "b": 2, "c": 4}
    assert index.lookup([2, 3], 0.0) == {}
    assert index.lookup([], 0.0) == {}


def test_a_removal_in_the_middle_cuts_the_claim_there() -> None:
    index = index_of("a", "b")
    for name in ("a", "b"):
        index.stored(name, range(1, 9))
    index.removed("a", [4])
    assert index.lookup(range(1, 9), 0.0) == {"a": 3, "b": 8}
    index.stored("a", [4], parent=3)
    assert index.lookup(range(1, 9), 0.0) == {"a": 4, "b": 8}


def test_a_run_behind_a_removed_one_counts_again_once_that_is_stored() -> None:
    index = index_of("a")
    index.stored("a", [1, 2, 3])
    index.stored("a", [1, 2, 40])
    index.removed("a", [2])
    assert index.lookup([1, 2, 3], 0.0) == {"a": 1}
    index.stored("a", [2], parent=1)
    assert index.lookup([1, 2, 3], 0.0) == {"a": 3}


def test_a_part_dispatched_again_does_not_prolong_the_rest() -> None:
    index = index_of("a")
    index.dispatched("a", (1, 2, 3, 4), 0.0)
    index.dispatched("a", (1, 2), 6.0)
    assert index.lookup([1, 2, 3, 4], 9.9) == {"a": 4}
    assert index.lookup([1, 2, 3, 4], 10.0).get("a", 0) <= 2


def test_a_longer_prompt_dispatched_later_prolongs_all_of_it() -> None:
    index = index_of("a")
    index.dispatched("a", (1, 2), 0.0)
    index.dispatched("a", (1, 2, 3, 4), 6.0)
    assert index.lookup([1, 2, 3, 4], 12.0) == {"a": 4}
    assert index.lookup([1, 2, 3, 4], 16.0) == {}


def test_what_is_confirmed_in_time_stays() -> None:
    index = index_of("a")
    index.dispatched("a", (1, 2, 3, 4), 0.0)
    index.stored("a", [1, 2])
    assert index.lookup([1, 2, 3, 4], 9.0) == {"a": 4}
    assert index.lookup([1, 2, 3, 4], 1000.0) == {"a": 2}


def test_a_dispatch_does_not_trust_a_lookup_that_is_out_of_date() -> None:
    index = index_of("a")
    prompt = (1, 2, 3, 4)
    index.stored("a", [1, 2, 3])
    assert index.lookup(prompt, 0.0) == {"a": 3}
    index.cleared("a")
    index.dispatched("a", prompt, 0.0)
    assert index.lookup(prompt, 0.0) == {"a": 4}
    index.stored("a", [1, 2, 50])
    index.dispatched("a", prompt, 0.0)
    assert index.lookup(prompt, 0.0) == {"a": 4}
    assert index.blocks("a") == 5


def test_the_least_recently_used_loses_its_tail_first() -> None:
    index = index_of("a", max_blocks=10, events=False)
    index.dispatched("a", (1, 2, 3, 4), 0.0)
    index.dispatched("a", (11, 12, 13, 14), 1.0)
    index.dispatched("a", (1, 2, 3, 4), 2.0)
    index.dispatched("a", (21, 22, 23, 24), 3.0)
    assert index.lookup([1, 2, 3, 4], 3.0) == {"a": 4}
    assert index.lookup([11, 12, 13, 14], 3.0) == {"a": 2}
    assert index.blocks("a") == 10


def test_a_prompt_longer_than_the_bound_keeps_its_beginning() -> None:
    index = index_of("a", max_blocks=10, events=False)
    index.dispatched("a", tuple(range(1, 30)), 0.0)
    assert index.lookup(range(1, 30), 0.0) == {"a": 10}


def test_blocks_behind_an_unknown_parent_are_dropped_and_counted() -> None:
    index = index_of("a")
    index.stored("a", [5, 6], parent=4)
    assert index.lookup([5, 6], 0.0) == {}
    assert (index.blocks("a"), index.orphans("a")) == (0, 2)


def test_strangers_are_ignored() -> None:
    index = index_of("a")
    index.stored("x", [1])
    index.dispatched("x", (1,), 0.0)
    index.removed("x", [1])
    index.cleared("x")
    index.mark_stale("x")
    index.resynced("x")
    index.remove_replica("x")
    assert index.lookup([1], 0.0) == {}
    assert (index.blocks("x"), index.orphans("x")) == (0, 0)


def test_a_bound_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_blocks"):
        PrefixIndex().add_replica("a", 0)


def test_a_bit_is_used_again_by_the_next_replica_without_its_blocks() -> None:
    index = index_of("a", "b")
    index.stored("a", [1, 2])
    index.remove_replica("a")
    index.add_replica("c", 100)
    assert index.lookup([1, 2], 0.0) == {}
    index.stored("c", [1])
    assert index.lookup([1, 2], 0.0) == {"c": 1}


def test_long_contexts_grow_block_by_block() -> None:
    index = index_of("a")
    blocks = list(range(1, 2 * MAX_RUN_BLOCKS + 50))
    index.stored("a", blocks[:1])
    for parent, block in itertools.pairwise(blocks):
        index.stored("a", [block], parent=parent)
    assert index.lookup(blocks, 0.0) == {"a": len(blocks)}
    assert index.memory().runs == 3
    index.removed("a", reversed(blocks))
    assert index.memory().runs == 0


def test_a_lookup_touches_runs_and_not_blocks() -> None:
    """Counted, not timed: a prompt is read at the ends of its runs only."""

    class Counted(tuple[int, ...]):
        reads = 0

        def __getitem__(self, at: object) -> object:  # type: ignore[override]
            Counted.reads += 1
            return super().__getitem__(at)  # type: ignore[index]

    index = index_of(*(f"r{n}" for n in range(64)))
    prompt = list(range(1, 513))
    for n in range(64):
        index.stored(f"r{n}", prompt[: 1 + 8 * n])
    claims = index.lookup(Counted(prompt), 0.0)
    assert claims == {f"r{n}": 1 + 8 * n for n in range(64)}
    assert Counted.reads < 300


@pytest.mark.parametrize("events", [True, False])
def test_memory_per_block_and_replica(events: bool) -> None:
    """The aim is 100 bytes; sizes just beyond a dict's steps are its worst ones."""
    rng = random.Random(1)
    index = index_of("a", events=events)
    for _ in range(60):
        session = tuple(rng.getrandbits(60) for _ in range(400))
        if events:
            index.stored("a", session)
        else:
            index.dispatched("a", session, 0.0)
    memory = index.memory()
    assert memory.pairs == 24_000
    assert memory.bytes_per_pair < (105 if events else 50)


def test_churn_does_not_make_it_grow() -> None:
    rng = random.Random(2)
    index = index_of("a")
    live: list[list[int]] = []
    for _ in range(400):
        live.append([rng.getrandbits(60) for _ in range(100)])
        index.stored("a", live[-1])
        if len(live) > 50:
            index.removed("a", reversed(live.pop(0)))
    assert index.blocks("a") == 5000
    assert index.memory().bytes_per_pair < 120


def test_match_length_by_bisection_equals_a_plain_count() -> None:
    rng = random.Random(3)
    for _ in range(300):
        run, at, start = tuple(range(100, 100 + rng.randrange(1, 20))), 0, rng.randrange(3)
        same = rng.randrange(0, 20)
        hashes = (*range(start), *run[:same], *range(900, 900 + rng.randrange(3)))
        at = rng.randrange(0, len(run)) if same == 0 else 0
        expected = 0
        while (
            at + expected < len(run)
            and start + expected < len(hashes)
            and run[at + expected] == hashes[start + expected]
        ):
            expected += 1
        assert match_length(run, at, hashes, start) == expected


def test_what_a_full_cache_would_lose_next_says_how_long_it_was_unused() -> None:
    index = PrefixIndex()
    index.add_replica("a", 100)
    assert index.eviction_age_s("a", 5.0) == math.inf
    index.dispatched("a", (1, 2, 3), 10.0)
    index.stored("a", (1, 2, 3))
    index.dispatched("a", (7, 8), 20.0)
    index.stored("a", (7, 8))
    assert index.eviction_age_s("a", 25.0) == math.inf  # nothing was evicted: there is space
    index.removed("a", (3,))
    assert index.eviction_age_s("a", 25.0) == 15.0
    index.dispatched("a", (1, 2), 26.0)  # used again: now 7, 8 are next
    assert index.eviction_age_s("a", 27.0) == 7.0
    assert index.eviction_age_s("a", 20.0 + EVICTING_S + 1.0) == math.inf
    assert index.eviction_age_s("stranger", 27.0) == math.inf
