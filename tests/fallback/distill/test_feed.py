"""Batches: bounded, complete, shared between workers, and found again."""

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from fallback.distill.corpus import Row, answers
from fallback.distill.feed import Feed, pack, pad

rows_of = st.lists(st.integers(2, 90), min_size=1, max_size=60)


def _rows(lengths: list[int], first: int = 1) -> list[Row]:
    return [([first + n] * size, [0.0] + [1.0] * (size - 1)) for n, size in enumerate(lengths)]


@given(rows_of)
def test_no_row_is_lost_and_no_batch_too_large(lengths: list[int]) -> None:
    rows = _rows(lengths)
    batches = pack(rows, 256, 0, random.Random(1))
    found = [int(row[0]) for batch in batches for row in batch.ids]
    assert sorted(found) == list(range(1, len(rows) + 1))
    assert all(batch.tokens <= 256 for batch in batches)
    assert sum(batch.real_tokens for batch in batches) == sum(lengths)


def test_places_are_those_that_weigh_and_few_more() -> None:
    batch = pad([([5, 6, 7], [0.0, 1.0, 0.5]), ([8, 9], [0.0, 0.0])], 0)
    places = batch.places(multiple=4)
    weights = batch.weights[:, 1:].flatten()[places]
    assert len(places) == 4
    assert float(weights.sum()) == 1.5
    assert batch.ids[:, 1:].flatten()[places][weights > 0].tolist() == [6, 7]


@given(st.integers(1, 3), st.integers(0, 12))
def test_a_feed_goes_on_where_another_stopped(workers: int, taken: int) -> None:
    def rows(pool: int) -> list[Row]:
        return _rows([8] * 24, first=100 * pool)

    def feed(rank: int) -> Feed:
        return Feed(rows, 64, 0, "x", rank, workers)

    for rank in range(workers):
        one, other = feed(rank), feed(rank)
        for _ in range(taken):
            one.next()
        other.position = one.position
        assert torch.equal(one.next().ids, other.next().ids)


def test_workers_share_a_pool_without_overlap() -> None:
    def rows(pool: int) -> list[Row]:
        return _rows([8] * 24, first=100 * pool + 1)

    feeds = [Feed(rows, 64, 0, "x", rank, 2) for rank in range(2)]
    taken = [[int(feed.next().ids[0, 0]) for _ in range(4)] for feed in feeds]
    assert set(taken[0]).isdisjoint(taken[1])
    assert feeds[0].position == feeds[1].position


def test_answers_are_the_stretches_that_are_learned_in_full() -> None:
    row = ([0] * 8, [0.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0])
    assert answers(row) == [(2, 3), (5, 8)]
    assert answers(([0] * 8, [1.0] * 8)) == [(4, 8)]
    assert answers(([0] * 3, [0.0, 0.5, 0.5])) == []
