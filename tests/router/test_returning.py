"""Whether what comes came before."""

from __future__ import annotations

import pytest

from router.returning import ReturnMeter


def chain(talk: int, blocks: int) -> tuple[int, ...]:
    return tuple(1_000_000 * talk + block for block in range(blocks))


def test_nothing_is_said_before_enough_was_seen() -> None:
    meter = ReturnMeter(window_tokens=10_000.0)
    meter.observe(chain(1, 10), 500)
    meter.observe(chain(1, 10), 499)
    assert meter.share == 0.0
    meter.observe(chain(1, 10), 160)
    assert meter.share > 0.4


@pytest.mark.parametrize(("growth", "least"), [(1, 0.6), (5, 0.6)])
def test_growing_conversations_return(growth: int, least: float) -> None:
    meter = ReturnMeter(window_tokens=50_000.0)
    for turn in range(1, 40):
        for talk in range(5):
            blocks = 20 + growth * turn
            meter.observe(chain(talk, blocks), 16 * blocks)
    assert least < meter.share <= 1.0


def test_a_common_first_block_is_not_much() -> None:
    meter = ReturnMeter(window_tokens=50_000.0)
    for n in range(1, 300):
        meter.observe((7, *chain(n, 40)), 16 * 41)
    assert meter.share < 0.05


def test_it_does_not_fall_when_the_caches_lose_everything_but_does_when_users_change() -> None:
    meter = ReturnMeter(window_tokens=20_000.0)
    for n in range(200):
        meter.observe(chain(n % 10, 40), 640)
    assert meter.share > 0.7
    for n in range(200):
        meter.observe(chain(1000 + n, 40), 640)
    assert meter.share < 0.1


def test_memory_is_bounded() -> None:
    meter = ReturnMeter(window_tokens=1000.0, remembered=100)
    for n in range(50):
        meter.observe(chain(n, 40), 640)
    assert len(meter._seen) <= 100
    meter.observe((), 640)
    assert meter.share == 0.0
