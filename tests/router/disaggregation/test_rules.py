"""What every registered rule must keep, and what each of them is for."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router.disaggregation.rules
import router.scorers  # noqa: F401 - registers the policies
from router.disaggregation.pace import LengthSpread, PaceBook, Prices, Slo
from router.disaggregation.rule import build_rule, rule_names
from router.disaggregation.transfer import TransferBook
from router.disaggregation.ways import Ways
from router.ledger import Outlook
from router.policy import build_policy
from router.snapshot import Snapshot
from router.types import (
    LatencyFit,
    ReplicaInfo,
    ReplicaLoad,
    ReplicaStats,
    ReplicaView,
    Role,
    RouteRequest,
)
from weir.errors import ConfigError

FIT = LatencyFit((0.005, 0.03, 0.0), (0.01, 0.0, 0.0), 99)


def view(name: str, role: Role, load: ReplicaLoad | None = None) -> ReplicaView:
    """A replica that prefills 33,000 tokens a second."""
    info = ReplicaInfo(name, kv_blocks_total=100_000, block_size=16, role=role)
    return ReplicaView(info, load or ReplicaLoad(), ReplicaStats(), FIT)


def ways(
    views: tuple[ReplicaView, ...],
    prompt: int = 8000,
    *,
    held: Mapping[str, int] | None = None,
    saturated: tuple[str, ...] = (),
    pace: PaceBook | None = None,
    slo: Slo | None = None,
    waiting: int = 0,
    seed: int = 1,
) -> Ways:
    request = RouteRequest("q", "m", "t", prompt, 200, 200)
    return Ways(
        request,
        Snapshot(0.0, views, held or {}),
        saturated,
        policy=build_policy("weir"),
        rng=random.Random(seed),
        slo=slo or Slo(2.0, 0.025),
        pace=pace or PaceBook(),
        transfers=TransferBook(),
        fleets={},
        waiting=waiting,
    )


def busy(pace: PaceBook, name: str, answers: int) -> PaceBook:
    """``answers`` answers under way on a replica, whose steps take 10 ms."""
    for _ in range(answers):
        pace.of(name).join(Slo(2.0, 0.025), 200)
    for number in range(40):
        pace.answered(name, Outlook(0.0, 0, number % 5, 1000 * number), 0.01, 100)
    return pace


PAIR = (view("p", "prefill"), view("d", "decode"))


def test_every_rule_is_known_and_rejects_what_it_does_not_know() -> None:
    assert set(rule_names()) == {"adaptive", "always", "dynamo", "llm-d", "never"}
    for name in rule_names():
        with pytest.raises(ConfigError):
            build_rule(name, {"no such parameter": 1})
    with pytest.raises(ConfigError, match=r"routing\.disaggregation"):
        build_rule("adaptive", {"power": 0.5})


roles = st.sampled_from(["mixed", "prefill", "decode"])
loads = st.builds(ReplicaLoad, st.integers(0, 50), *[st.integers(0, 200_000)] * 3)


@pytest.mark.parametrize("name", rule_names())
@settings(max_examples=80, deadline=None)
@given(
    shape=st.lists(st.tuples(roles, loads, st.integers(0, 600)), min_size=1, max_size=6),
    prompt=st.integers(1, 20_000),
    full=st.sets(st.integers(0, 5)),
)
def test_a_rule_is_pure_and_keeps_to_roles_and_room(
    name: str,
    shape: list[tuple[Role, ReplicaLoad, int]],
    prompt: int,
    full: set[int],
) -> None:
    views = tuple(view(f"r{i}", role, load) for i, (role, load, _) in enumerate(shape))
    held = {f"r{i}": blocks for i, (_, _, blocks) in enumerate(shape)}
    saturated = tuple(f"r{i}" for i in full)
    rule = build_rule(name)
    first, again = (
        rule.choose(ways(views, prompt, held=held, saturated=saturated)) for _ in range(2)
    )
    assert first == again
    if first is None:
        return
    prompt_at = first.replica if first.prefill is None else first.prefill
    assert f"r{prompt_at}" not in saturated
    if first.prefill is not None:
        assert first.prefill != first.replica
        assert views[first.prefill].info.role != "decode"
        assert views[first.replica].info.role != "prefill"


@pytest.mark.parametrize("name", rule_names())
def test_a_rule_always_finds_a_way_while_all_have_room(name: str) -> None:
    for views in ((view("p", "prefill"),), (view("d", "decode"),), PAIR):
        assert build_rule(name).choose(ways(views)) is not None


def test_fixed_choices() -> None:
    never, always = build_rule("never"), build_rule("always")
    whole, pair = never.choose(ways(PAIR)), always.choose(ways(PAIR))
    assert whole is not None
    assert pair is not None
    assert (whole.replica, whole.prefill) == (1, None)
    assert (pair.replica, pair.prefill) == (1, 0)
    assert always.choose(ways(PAIR, saturated=("p",))) is None


@pytest.mark.parametrize(
    ("name", "prompt", "cached_blocks", "splits"),
    [
        ("llm-d", 15, 0, False),
        ("llm-d", 16, 0, True),
        ("llm-d", 8000, 500, False),
        ("dynamo", 2048, 0, True),
        ("dynamo", 2000, 0, True),  # few tokens, but all of the prompt
        ("dynamo", 8000, 400, False),
        ("dynamo", 8000, 370, True),
    ],
)
def test_thresholds_of_the_peers(name: str, prompt: int, cached_blocks: int, splits: bool) -> None:
    way = build_rule(name).choose(ways(PAIR, prompt, held={"d": cached_blocks}))
    assert way is not None
    assert (way.prefill is not None) is splits


def test_dynamos_first_rule_spares_a_full_prefill_queue() -> None:
    rule = build_rule("dynamo", {"queued_requests": 2.0})
    queued = (view("p", "prefill", ReplicaLoad(2, 9000, 0, 9000)), PAIR[1])
    way = rule.choose(ways(queued))
    assert way is not None
    assert way.prefill is None


def test_adaptive_keeps_prompts_away_from_answers_that_have_no_time() -> None:
    adaptive = build_rule("adaptive", {"answering_share": 0.0})
    lonely = adaptive.choose(ways(PAIR))
    beside = adaptive.choose(ways(PAIR, pace=busy(PaceBook(), "d", 30)))
    assert lonely is not None
    assert beside is not None
    assert lonely.prefill is None
    assert beside.prefill == 0


def test_a_prefill_replica_with_few_prompts_answers_too() -> None:
    adaptive, pace = build_rule("adaptive"), busy(PaceBook(), "d", 30)
    way = adaptive.choose(ways(PAIR, pace=pace))
    assert way is not None
    assert (way.replica, way.prefill) == (0, None)
    unknown = PaceBook()
    for _ in range(30):
        unknown.of("d").join(Slo(2.0, 0.025), 200)
    way = adaptive.choose(ways(PAIR, pace=unknown))
    assert way is not None
    assert way.replica == 1
    pace.of("p").dispatched(0.0, 8.0)
    way = adaptive.choose(ways(PAIR, pace=pace))
    assert way is not None
    assert (way.replica, way.prefill) == (1, 0)


def test_adaptive_waits_for_the_prefill_replica_rather_than_making_answers_late() -> None:
    adaptive, pace = build_rule("adaptive"), busy(PaceBook(), "d", 30)
    assert adaptive.choose(ways(PAIR, 40_000, saturated=("p",), pace=pace)) is None
    long_queue = (view("p", "prefill", ReplicaLoad(9, 900_000, 0, 900_000)), PAIR[1])
    patient = adaptive.choose(
        ways(long_queue, saturated=("p",), pace=busy(PaceBook(), "d", 1), slo=Slo(2.0, 0.15))
    )
    assert patient is not None
    assert patient.prefill is None


def test_adaptive_uses_what_the_answering_replica_holds() -> None:
    pace = busy(PaceBook(), "d", 30)
    way = build_rule("adaptive").choose(ways(PAIR, held={"d": 499}, pace=pace))
    assert way is not None
    assert way.prefill is None


def test_the_pair_is_chosen_jointly() -> None:
    views = (
        view("p0", "prefill", ReplicaLoad(1, 4000, 0, 4000)),
        view("p1", "prefill"),
        view("d0", "decode", ReplicaLoad(60, 0, 9000, 60_000)),
        view("d1", "decode"),
    )
    pace = busy(busy(PaceBook(), "d0", 60), "d1", 1)
    plain = ways(views, pace=pace).pair(Prices())
    cached = ways(views, held={"p0": 499}, pace=pace).pair(Prices())
    assert plain is not None
    assert cached is not None
    assert (plain.prefill, plain.replica) == (1, 3)
    assert (cached.prefill, cached.replica) == (0, 3)


def test_a_delay_is_what_makes_short_answers_late() -> None:
    even, spread = LengthSpread(), LengthSpread()
    for number in range(64):
        even.observe(100, 100)
        spread.observe(100, 10 if number % 2 else 190)
    pace = busy(PaceBook(), "d", 10).of("d")
    harms = [pace.harm(0.01, 0.3, 1.0, Prices(), each) for each in (even, spread)]
    assert harms[1] > 2 * harms[0] > 0


def test_no_token_waits_for_more_than_a_step_full_of_prompt() -> None:
    pace = busy(PaceBook(), "d", 10).of("d")
    even = LengthSpread()
    assert pace.harm(0.01, 60.0, 0.012, Prices(), even) < pace.harm(0.01, 60.0, 1.0, Prices(), even)


def test_the_share_of_prompts_is_forgotten() -> None:
    pace = PaceBook(window_s=10.0).of("r")
    for second in range(100):
        pace.dispatched(float(second), 0.5)
    assert pace.share(99.0) == pytest.approx(0.5, rel=0.1)
    assert pace.share(109.0) == pytest.approx(pace.share(99.0) / 2.718, rel=1e-3)
    pace.dispatched(110.0, 500.0)
    assert pace.share(110.0) == 0.9


def test_a_replica_that_has_just_begun_does_not_look_idle() -> None:
    pace = PaceBook(window_s=10.0).of("r")
    assert pace.share(50.0) == 0.0
    for second in range(3):
        pace.dispatched(50.0 + second, 0.5)
    assert pace.share(53.0) == pytest.approx(0.5, rel=0.2)


def test_who_meets_prompts_meets_long_ones() -> None:
    """One document of 2 s beside 20 prompts of 0.02 s stalls an answer for some 2 s, if at all; as
    many seconds of short prompts never do."""
    costs = []
    for prompts in ([0.02] * 20 + [2.0], [0.02] * 120):
        pace = busy(PaceBook(), "p", 0)
        for number, prefill_s in enumerate(prompts):
            pace.of("p").dispatched(-10.0 + number * 10.0 / len(prompts), prefill_s)
        # The answer has little time, but for a short stall it has.
        way = ways((view("p", "mixed"),), 100, pace=pace, slo=Slo(2.0, 0.016)).best(
            Prices(others=0.0, work=0.0, step_tokens=1 << 20)
        )
        assert way is not None
        costs.append(way.cost)
    assert costs[0] > 1.2 * costs[1]


def test_a_prompt_beside_answers_makes_gaps_that_their_means_do_not_show() -> None:
    """Four long answers with steps of 10 ms and a target of 25: a prompt of 0.24 s changes their
    means by a tenth, and stops each of them for ten targets. The hand-over costs less."""
    pace = PaceBook()
    for _ in range(4):
        pace.of("d").join(Slo(2.0, 0.025), 2000)
    for number in range(40):
        pace.answered("d", Outlook(0.0, 0, number % 5, 1000 * number), 0.01, 100)
    alone = {"answering_share": 0.0, "work": 0.0}
    blind = build_rule("adaptive", {**alone, "gap_tokens": 0.0, "others": 0.0})
    ways_ = [rule.choose(ways(PAIR, pace=pace)) for rule in (blind, build_rule("adaptive", alone))]
    assert [way.prefill if way else -1 for way in ways_] == [None, 0]


@settings(max_examples=60, deadline=None)
@given(
    answers=st.integers(1, 40),
    step_s=st.floats(0.001, 0.02),
    longest_s=st.floats(0.001, 2.0),
    gaps=st.integers(1, 50),
)
def test_gaps_cost_more_the_longer_and_the_more_they_are(
    answers: int, step_s: float, longest_s: float, gaps: int
) -> None:
    pace, prices = busy(PaceBook(), "d", answers).of("d"), Prices()
    harm = pace.gap_harm(step_s, longest_s, gaps, prices)
    assert 0.0 <= harm <= pace.gap_harm(step_s, 2.0 * longest_s, gaps, prices)
    assert harm <= pace.gap_harm(step_s, longest_s, gaps + 1, prices)
    assert harm == 0.0 or longest_s > step_s
    # No answer can be later than with nothing but such gaps.
    assert harm <= answers * prices.lateness(longest_s / 0.025) + 1e-9
    assert pace.gap_harm(step_s, longest_s, gaps, Prices(gap_tokens=0.0)) == 0.0
