"""The latency models learn what is there, admit their error, and survive outliers."""

from __future__ import annotations

import random

import pytest

from router.latency import LatencyBook, LatencyParams, LeastSquares
from router.ledger import Outlook


def outlook(rng: random.Random) -> Outlook:
    return Outlook(0.0, rng.randrange(0, 30_000), rng.randrange(1, 40), rng.randrange(0, 90_000))


def true_ttft_s(seen: Outlook, speed: float = 1.0) -> float:
    return (0.02 + 0.05 * seen.prefill_tokens / 1000 + 0.002 * seen.requests) / speed


def true_tpot_s(seen: Outlook, speed: float = 1.0) -> float:
    return (0.008 + 0.0002 * seen.requests + 0.00005 * seen.context_tokens / 1000) / speed


def teach(book: LatencyBook, name: str, rng: random.Random, count: int, speed: float = 1.0) -> None:
    for _ in range(count):
        seen = outlook(rng)
        noise = rng.uniform(0.9, 1.1)
        book.first_token(name, seen, noise * true_ttft_s(seen, speed))
        book.finished(name, seen, noise * true_tpot_s(seen, speed), 10)


def relative_errors(book: LatencyBook, name: str, rng: random.Random, speed: float) -> list[float]:
    errors = []
    for _ in range(50):
        seen = outlook(rng)
        fit = book.fit(name)
        ttft_s = fit.ttft_s(seen.prefill_tokens, seen.requests)
        tpot_s = fit.tpot_s(seen.requests, seen.context_tokens)
        errors.append(abs(ttft_s / true_ttft_s(seen, speed) - 1))
        errors.append(abs(tpot_s / true_tpot_s(seen, speed) - 1))
    return errors


def test_it_learns_each_replica_of_its_own_speed() -> None:
    book, rng = LatencyBook(), random.Random(1)
    for _ in range(20):
        teach(book, "fast", rng, 20, speed=2.0)
        teach(book, "slow", rng, 20, speed=1.0)
    assert max(relative_errors(book, "fast", rng, 2.0)) < 0.25
    assert max(relative_errors(book, "slow", rng, 1.0)) < 0.25


def test_the_published_error_is_that_of_predictions_made_before() -> None:
    book, rng = LatencyBook(), random.Random(2)
    teach(book, "r", rng, 400)
    error = book.error("r")
    # Noise of ±10 % has a mean absolute error of 5 %: less would be a lie, much more a bad fit.
    assert 0.04 < error.ttft_relative < 0.12
    assert 0.04 < error.tpot_relative < 0.12
    assert (error.ttft_samples, error.tpot_samples) == (400, 400)


def test_a_new_replica_borrows_the_fleets_fit() -> None:
    book, rng = LatencyBook(), random.Random(3)
    teach(book, "old", rng, 200)
    teach(book, "new", rng, 3)
    assert max(relative_errors(book, "new", rng, 1.0)) < 0.3
    assert book.error("never seen") == book.error()


def test_it_follows_a_change_of_speed() -> None:
    book, rng = LatencyBook(LatencyParams(forgetting=0.98)), random.Random(4)
    teach(book, "r", rng, 300, speed=1.0)
    teach(book, "r", rng, 300, speed=3.0)
    assert max(relative_errors(book, "r", rng, 3.0)) < 0.25


def test_a_cold_start_does_not_spoil_a_warm_fit() -> None:
    book, rng = LatencyBook(), random.Random(5)
    teach(book, "r", rng, 300)
    for _ in range(3):
        book.first_token("r", Outlook(0.0, 500, 1, 500), 60.0)
    teach(book, "r", rng, 10)
    assert max(relative_errors(book, "r", rng, 1.0)) < 0.5


def test_the_same_question_again_and_again_does_not_blow_it_up() -> None:
    book = LatencyBook()
    seen = Outlook(0.0, 1000, 1, 1000)
    for _ in range(20_000):
        book.first_token("r", seen, 0.1)
    assert book.fit("r").ttft_s(1000, 1) == pytest.approx(0.1, rel=0.01)
    for _ in range(8):
        book.first_token("r", Outlook(0.0, 2000, 2, 1000), 0.2)
    assert 0.1 < book.fit("r").ttft_s(2000, 2) < 0.4


@pytest.mark.parametrize("seed", range(4))
def test_a_stub_that_takes_no_time_neither_breaks_nor_drives_it_away(seed: int) -> None:
    """Rounding made the covariance negative: coefficients of 1e34, then a division by zero."""
    rng, model = random.Random(seed), LeastSquares(0.995, 4.0)
    for _ in range(20_000):
        requests = float(rng.randrange(1, 65))
        taken_s = rng.choice([1e-6, 1e-5, 1e-4, 3e-3, 0.02]) * rng.random()
        model.observe((1.0, requests, rng.randrange(1, 65) * 0.1), taken_s)
    assert all(abs(coefficient) < 1.0 for coefficient in model.theta)


def test_forgotten_replicas_begin_anew() -> None:
    book, rng = LatencyBook(), random.Random(6)
    teach(book, "r", rng, 100)
    book.forget("r")
    assert book.error("r") == book.error()


def test_fits_are_published_now_and_then_and_the_version_tells() -> None:
    book, rng = LatencyBook(LatencyParams(publish_every=10)), random.Random(7)
    before = book.fit("r"), book.version
    teach(book, "r", rng, 4)
    assert (book.fit("r"), book.version) == before
    teach(book, "r", rng, 1)
    assert book.version > before[1]
    assert book.fit("r") != before[0]


def test_a_pace_that_seems_to_fall_with_the_load_is_taken_as_even() -> None:
    """All that was seen is a busy replica, and a slower one with less to do."""
    params = LatencyParams(rising=True)
    books = LatencyBook(), LatencyBook(params)
    for number in range(64):
        requests, tpot_s = (20, 0.010) if number % 2 else (10, 0.020)
        for book in books:
            book.finished("r", Outlook(0.0, 0, requests, 1000), tpot_s, 100)
    believed, rising = (book.fit("r") for book in books)
    assert believed.tpot_s(40, 1000) < 0.002
    assert 0.010 <= rising.tpot_s(40, 1000) <= 0.020
    assert rising.tpot_s(40, 1000) == rising.tpot_s(5, 1000)
