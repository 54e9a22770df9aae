"""The block pool: prefix reuse, eviction order, bookkeeping."""

from __future__ import annotations

import pytest

from load_tests.sim.blocks import BlockPool


def fill(pool: BlockPool, hashes: tuple[int, ...], rest: int = 0) -> None:
    """A sequence comes, computes its blocks and goes."""
    hits = pool.match(hashes)
    pool.take(hashes[:hits])
    pool.allocate(len(hashes) - hits + rest)
    pool.store(hashes[hits:], hashes[hits - 1] if hits else None)
    pool.release(hashes, rest)


def test_a_freed_block_is_found_until_it_is_needed() -> None:
    pool = BlockPool(4)
    fill(pool, (1, 2))
    assert pool.match((1, 2, 3)) == 2
    assert pool.available == 4
    fill(pool, (7, 8, 9))
    assert pool.match((1, 2)) == 1  # the tail went first


def test_least_recently_freed_goes_first() -> None:
    pool = BlockPool(4)
    fill(pool, (1, 2))
    fill(pool, (3, 4))
    fill(pool, (1, 2))
    fill(pool, (5, 6))
    assert pool.match((1, 2)) == 2
    assert pool.match((3, 4)) == 0


def test_blocks_in_use_are_never_dropped() -> None:
    pool = BlockPool(3)
    pool.allocate(2)
    pool.store((1, 2))
    fill(pool, (9,))
    fill(pool, (8,))
    assert pool.match((1, 2)) == 2
    with pytest.raises(RuntimeError, match="more KV blocks"):
        pool.allocate(2)


def test_two_sequences_that_compute_the_same_block_share_it_afterwards() -> None:
    pool = BlockPool(4, log=True)
    pool.allocate(2)
    pool.allocate(2)
    pool.store((1, 2))
    pool.store((1, 5))
    assert pool.used == 3
    pool.release((1, 2), 0)
    assert pool.match((1, 5)) == 2
    assert pool.used == 2
    assert pool.log == [(True, (1, 2), None), (True, (5,), 1)]


def test_content_nobody_asks_for_still_takes_its_turn() -> None:
    pool = BlockPool(4)
    pool.allocate(3)
    pool.release((), 3, rest_full=2)
    fill(pool, (1, 2, 3))
    assert pool.match((1, 2, 3)) == 3
    assert pool.available == 4
