"""What is learned of transfers."""

from __future__ import annotations

import random

import pytest

from router.disaggregation.transfer import TransferBook, TransferParams

PARAMS = TransferParams(latency_s=1.0, token_s=1.0)


def test_the_first_guess_stands_until_there_is_something_to_learn_from() -> None:
    book = TransferBook(PARAMS)
    for _ in range(7):
        book.observe(100, 0.1)
    assert book.predict_s(10) == 11.0


def test_latency_and_slope_are_found_among_outliers() -> None:
    book, rng = TransferBook(PARAMS), random.Random(3)
    for number in range(64):
        tokens = rng.randrange(100, 20_000)
        took_s = 0.005 + tokens * 5e-6
        book.observe(tokens, 5.0 if number % 6 == 0 else took_s)
    assert book.predict_s(10_000) == pytest.approx(0.055, rel=0.02)


def test_transfers_of_one_size_say_what_that_size_takes() -> None:
    book = TransferBook(TransferParams(latency_s=0.0, token_s=1e-6))
    for _ in range(32):
        book.observe(1000, 0.25)
    assert book.predict_s(1000) == pytest.approx(0.25)


def test_it_follows_a_link_that_has_changed() -> None:
    book = TransferBook(PARAMS)
    for slope in (1e-6, 1e-5):
        for tokens in range(100, 6500, 100):
            book.observe(tokens, tokens * slope)
    assert book.predict_s(10_000) == pytest.approx(0.1, rel=0.01)


def test_nothing_to_move_takes_no_time_and_teaches_nothing() -> None:
    book = TransferBook(PARAMS)
    for _ in range(64):
        book.observe(0, 9.0)
    assert book.predict_s(0) == 0.0
    assert book.predict_s(1) == 2.0
