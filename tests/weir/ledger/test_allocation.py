"""What is paid is borne, to the nano-USD, by those who used it and by nobody else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.ledger.allocation import Pace, allocate, paid_nano_usd

_AMOUNTS = st.integers(0, 10**15)
_TIMES_US = st.integers(0, 10**13)
_WORK = st.dictionaries(st.integers(0, 10**6), _TIMES_US, max_size=40)


@given(paid=_AMOUNTS, wall_us=_TIMES_US, work_us=_WORK)
def test_shares_and_idle_are_what_is_paid(paid: int, wall_us: int, work_us: dict[int, int]) -> None:
    shared = allocate(paid, wall_us, work_us)
    assert sum(shared.nano_usd.values()) + shared.idle_nano_usd == paid
    assert shared.nano_usd.keys() == work_us.keys()
    assert min([shared.idle_nano_usd, *shared.nano_usd.values()]) >= 0


@given(paid=_AMOUNTS, wall_us=_TIMES_US, work_us=_WORK)
def test_each_bears_its_part_to_the_nano_usd(
    paid: int, wall_us: int, work_us: dict[int, int]
) -> None:
    shared = allocate(paid, wall_us, work_us)
    whole_us = max(wall_us, sum(work_us.values()))
    for who, work in work_us.items():
        exact = Fraction(paid * work, whole_us) if whole_us else Fraction(0)
        assert abs(shared.nano_usd[who] - exact) < 1


@given(paid=_AMOUNTS, wall_us=_TIMES_US, work_us=_WORK, parts=st.integers(2, 5))
def test_a_group_bears_what_its_members_do(
    paid: int, wall_us: int, work_us: dict[int, int], parts: int
) -> None:
    """Whatever legs are grouped by, a group bears what its legs would: to less than a nano-USD
    for each of them."""
    alone = allocate(paid, wall_us, work_us).nano_usd
    groups: dict[int, int] = {}
    for who, work in work_us.items():
        groups[who % parts] = groups.get(who % parts, 0) + work
    together = allocate(paid, wall_us, groups)
    for group, nano_usd in together.nano_usd.items():
        members = [alone[who] for who in work_us if who % parts == group]
        assert abs(nano_usd - sum(members)) <= len(members) + 1
    assert together.idle_nano_usd == allocate(paid, wall_us, work_us).idle_nano_usd


@given(paid=_AMOUNTS, wall_us=st.integers(1, 10**13))
def test_nobody_there_is_all_idle(paid: int, wall_us: int) -> None:
    assert allocate(paid, wall_us, {}).idle_nano_usd == paid
    assert allocate(paid, wall_us, {"a": 0}).idle_nano_usd == paid


def test_more_work_than_time_leaves_nothing_idle() -> None:
    shared = allocate(100, 10, {"a": 15, "b": 5})
    assert shared.nano_usd == {"a": 75, "b": 25}
    assert shared.idle_nano_usd == 0


@pytest.mark.parametrize(("paid", "wall_us", "work"), [(-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_nothing_is_negative(paid: int, wall_us: int, work: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        allocate(paid, wall_us, {"a": work})


def test_half_an_hour_costs_half() -> None:
    assert paid_nano_usd(1_800_000, 3_000_000_001) == 1_500_000_000
    assert paid_nano_usd(1_800_000, 3_000_000_003) == 1_500_000_002
    assert paid_nano_usd(0, 3) == 0


def test_tokens_that_nobody_has_told_of_take_what_others_took() -> None:
    pace = Pace.of(prefill_us=600, prompt_tokens=60, decode_us=2000, output_tokens=10)
    assert pace.work(0, 30, 2) == (300 + 400) * pace.parts
    assert pace.work(7, 0, 0) == 7 * pace.parts
    assert Pace.of(0, 0, 0, 0).work(0, 1000, 1000) == 0
    third = Pace.of(prefill_us=1, prompt_tokens=3, decode_us=1, output_tokens=2)
    assert (
        third.work(0, 3, 2) == 2 * third.parts == 3 * third.work(0, 1, 0) + 2 * third.work(0, 0, 1)
    )
