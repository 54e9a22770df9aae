"""Waste: computing again what another replica holds."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

import router.scorers  # noqa: F401  (registers the policies)
from router.held import Common, Held
from router.policy import build_policy
from router.scorers.expected_work import ExpectedWork, ExpectedWorkParams
from router.scoring import choose_least
from router.snapshot import Snapshot
from router.types import ReplicaInfo, ReplicaLoad, ReplicaView, RouteRequest


def choose(prompt: int, held: int, busy: int, **params: float) -> str:
    """``held`` tokens of the prompt are on a replica with ``busy`` tokens before it; the other one
    holds nothing and has nothing to do."""
    views = tuple(
        ReplicaView(ReplicaInfo(name, attention_tokens=1e12), ReplicaLoad(1, prefill, 0, prefill))
        for name, prefill in (("holder", busy), ("idle", 0))
    )
    request = RouteRequest("q", "m", "t", prompt, 10, 10, block_hashes=tuple(range(prompt // 16)))
    policy = build_policy("weir", params)
    snapshot = Snapshot(1.0, views, {"holder": held // 16})
    return policy.choose(request, snapshot, random.Random(0)).replica_id


def test_waste_keeps_a_prompt_with_its_holder() -> None:
    assert choose(1600, 800, busy=3000) == "holder", "800 tokens spared are worth more than that"
    assert choose(1600, 800, busy=8000) == "idle", "a hot prefix replicates all the same"


def test_a_short_common_prefix_pulls_little() -> None:
    assert choose(1600, 160, busy=1000) == "idle"
    assert choose(1600, 800, busy=3000, short_tokens=100_000.0) == "idle"


def test_a_prompt_that_is_long_anyway_goes_where_it_is_served_first() -> None:
    assert choose(20_000, 8000, busy=80_000) == "holder"
    assert choose(1_000_000, 8000, busy=80_000) == "idle"


loads = st.tuples(*[st.sampled_from([0, 1, 200, 3000, 90_000])] * 4)
depths = st.integers(0, 40)


@given(
    st.lists(loads, min_size=1, max_size=12),
    st.lists(depths, min_size=12, max_size=12),
    st.dictionaries(st.integers(0, 13), depths, max_size=5),
    st.sampled_from([1280, 1300, 20_000]),  # no shorter than what anybody holds
    st.sampled_from([1, 4, 256]),
    st.integers(0, 3),
)
def test_the_few_that_hold_more_are_compared_apart_with_the_same_choice(
    fleet: list[tuple[int, int, int, int]],
    common: list[int],
    more: dict[int, int],
    prompt: int,
    most_running: int,
    seed: int,
) -> None:
    """Found by looking at a few candidates or at all: the same one, and the dice fall alike."""
    views = tuple(
        ReplicaView(ReplicaInfo(f"r{n}", max_running=most_running), ReplicaLoad(*load))
        for n, load in enumerate(fleet)
    )
    request = RouteRequest("q", "m", "t", prompt, 10, 10)
    many = {f"r{n}": blocks for n, blocks in enumerate(common) if blocks}
    few = {f"r{n}": blocks + many.get(f"r{n}", 0) for n, blocks in more.items()}
    work = ExpectedWork(ExpectedWorkParams())
    told = Snapshot(1.0, views, Held(Common(many), few))
    plain = Snapshot(1.0, views, {**many, **few})
    costs = list(work.costs(request, plain))
    assert list(work.costs(request, told)) == costs
    dice, others = random.Random(seed), random.Random(seed)
    assert work.least(request, told, dice) == choose_least(request, plain.columns, costs, others)
    assert dice.getstate() == others.getstate()
