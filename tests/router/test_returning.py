"""Whether what comes came before."""

from __future__ import annotations

import pytest

from router.returning import CacheUse, LossMeter, ReturnMeter


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
        assert len(meter._seen) + len(meter._older) <= 200
    meter.observe((), 640)
    assert meter.share == 0.0


def test_what_was_used_lately_is_remembered_and_the_rest_forgotten() -> None:
    """A prompt of one block is one prefix."""
    meter = ReturnMeter(remembered=100)
    for n in range(1, 1000):
        meter.observe((n,), 16)
        assert meter.observe((max(1, n - 45),), 16) == 16.0
    assert meter.observe((1,), 16) == 0.0


def test_it_says_how_much_of_each_prompt_came_before() -> None:
    meter = ReturnMeter()
    assert meter.observe(chain(1, 12), 120) == 0.0
    assert meter.observe(chain(1, 12) + chain(2, 12), 240) == 120.0
    assert meter.observe((), 100) == 0.0


def lose(meter: LossMeter, share: float, prompts: int = 400) -> bool:
    for _ in range(prompts):
        meter.observe(100, 80.0, 80.0 - 100 * share)
    return meter.thrashing


def test_what_returns_and_is_not_cached_is_lost() -> None:
    meter = LossMeter(window_tokens=10_000.0)
    meter.observe(999, 999.0, 0.0)
    assert meter.share == 0.0  # too little was seen
    lose(meter, 0.1)
    assert meter.share == pytest.approx(0.1, abs=0.02)
    for _ in range(400):
        meter.observe(100, 50.0, 60.0)  # the meter of returns is coarse: more is cached
    assert meter.share == pytest.approx(0.0, abs=0.002)


def test_thrashing_begins_high_and_ends_low() -> None:
    meter = LossMeter(window_tokens=10_000.0, high=0.08, low=0.02)
    assert [lose(meter, share) for share in (0.06, 0.1, 0.03, 0.01, 0.06)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_fleet_thrashes_when_prompts_return_and_are_cached_nowhere() -> None:
    caches = CacheUse()
    for _ in range(200):
        caches.observe(chain(1, 6000), 100_000, 0)
    assert caches.keeping
    assert caches.thrashing
    for _ in range(1000):
        caches.observe(chain(1, 6000), 100_000, 96_000)
    assert not caches.thrashing


def test_a_small_fleet_makes_up_its_mind_sooner() -> None:
    large, small = CacheUse(), CacheUse()
    large.resize(8_000_000)
    small.resize(80_000)
    for _ in range(10):
        for caches in (large, small):
            caches.observe(chain(1, 60), 1000, 0)
    assert (large.keeping, small.keeping) == (False, True)
    small.resize(0)
    assert small.keeping, "an empty fleet changes nothing"
