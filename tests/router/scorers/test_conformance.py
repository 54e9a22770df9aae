"""What every registered policy and scorer must keep. A new one enters by being registered."""

from __future__ import annotations

import copy
import random
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import router.scorers
from router.policy import build_policy, policy_names
from router.scoring import build_scorer, scorer_names
from router.snapshot import Snapshot
from router.types import (
    LatencyFit,
    ReplicaInfo,
    ReplicaLoad,
    ReplicaStats,
    ReplicaView,
    RouteRequest,
)
from weir.errors import ConfigError

counts = st.integers(0, 50)
tokens = st.integers(0, 200_000)
instants = st.floats(0, 100)

infos = st.builds(
    ReplicaInfo,
    replica_id=st.text("abcdef", min_size=1, max_size=4),
    kv_blocks_total=st.sampled_from([0, 100, 50_000]),
    block_size=st.sampled_from([16, 32]),
    max_running=st.integers(1, 64),
)
views = st.builds(
    ReplicaView,
    infos,
    st.builds(ReplicaLoad, counts, tokens, tokens, tokens),
    st.builds(ReplicaStats, counts, counts, st.integers(0, 60_000), instants),
    st.builds(
        LatencyFit,
        st.tuples(*[st.floats(-1, 1)] * 3),
        st.tuples(*[st.floats(-1, 1)] * 3),
        counts,
    ),
)
fleets = st.lists(views, min_size=1, max_size=8, unique_by=lambda view: view.replica_id)
requests = st.builds(
    RouteRequest,
    request_id=st.just("q"),
    model=st.just("m"),
    tenant=st.sampled_from(["t", "u"]),
    prompt_tokens=st.integers(1, 20_000),
    max_output_tokens=st.integers(1, 1000),
    expected_output_tokens=st.integers(1, 1000),
    block_hashes=st.lists(st.integers(1, 99), max_size=20).map(tuple),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[RouteRequest, Snapshot]:
    request, fleet = draw(requests), tuple(draw(fleets))
    blocks = len(request.block_hashes)
    size = max(view.info.block_size for view in fleet)
    blocks = min(blocks, request.prompt_tokens // size)
    overlap = {v.replica_id: draw(st.integers(0, blocks)) for v in fleet if draw(st.booleans())}
    return request, Snapshot(draw(st.floats(0, 200)), fleet, overlap)


def fingerprint(snapshot: Snapshot) -> object:
    columns = snapshot.columns
    rows = [
        list(getattr(columns, name))
        for name in columns.__slots__
        if name not in ("fleet", "urgencies", "_most_blocks_used")  # the last follows from stats
    ]
    return snapshot.now_s, snapshot.replicas, dict(snapshot.overlap_blocks), rows


def test_no_policy_can_look_at_a_clock_or_log() -> None:
    modules = [getattr(router.scorers, name) for name in router.scorers.__all__]
    assert len(modules) > 10
    for module in modules:
        imported = vars(module).keys() & {"time", "datetime", "os", "secrets", "logging", "asyncio"}
        assert not imported, module.__name__


@pytest.mark.parametrize("name", policy_names())
class TestPolicies:
    @given(situation=situations(), seed=st.integers(0, 99))
    def test_choice_is_a_candidate_and_repeatable(
        self, name: str, situation: tuple[RouteRequest, Snapshot], seed: int
    ) -> None:
        request, snapshot = situation
        before = copy.deepcopy(fingerprint(snapshot))
        decision = build_policy(name).choose(request, snapshot, random.Random(seed))
        again = build_policy(name).choose(request, snapshot, random.Random(seed))
        assert decision == again
        assert decision.replica_id in {view.replica_id for view in snapshot.replicas}
        assert decision.overlap_blocks in (
            0,
            snapshot.overlap_blocks.get(decision.replica_id, 0),
        )
        assert decision.reason
        assert fingerprint(snapshot) == before

    def test_equal_replicas_share_alike(self, name: str) -> None:
        fleet = tuple(ReplicaView(ReplicaInfo(f"r{i}")) for i in range(4))
        snapshot = Snapshot(1000.0, fleet)
        policy, rng = build_policy(name), random.Random(5)
        request = RouteRequest("q", "m", "t", 100, 10, 10)
        chosen = [policy.choose(request, snapshot, rng).replica_id for _ in range(400)]
        for view in fleet:
            assert 50 < chosen.count(view.replica_id) < 200


def ids_of(snapshot: Snapshot) -> list[str]:
    return [view.replica_id for view in snapshot.replicas]


@pytest.mark.parametrize("name", scorer_names())
class TestScorers:
    @given(situation=situations())
    def test_one_score_in_range_per_candidate_and_repeatable(
        self, name: str, situation: tuple[RouteRequest, Snapshot]
    ) -> None:
        request, snapshot = situation
        before = copy.deepcopy(fingerprint(snapshot))
        scores = list(build_scorer(name).scores(request, snapshot))
        assert len(scores) == len(snapshot.replicas)
        assert all(0.0 <= score <= 1.0 for score in scores)
        assert scores == list(build_scorer(name).scores(request, snapshot))
        assert fingerprint(snapshot) == before

    @given(situation=situations(), seed=st.integers(0, 99))
    def test_the_order_of_candidates_does_not_matter(
        self, name: str, situation: tuple[RouteRequest, Snapshot], seed: int
    ) -> None:
        request, snapshot = situation
        mixed = list(snapshot.replicas)
        random.Random(seed).shuffle(mixed)
        other = Snapshot(snapshot.now_s, tuple(mixed), snapshot.overlap_blocks)
        scorer = build_scorer(name)
        one = dict(zip(ids_of(snapshot), scorer.scores(request, snapshot), strict=True))
        two = dict(zip(ids_of(other), scorer.scores(request, other), strict=True))
        assert one == two

    @given(situation=situations(), data=st.data())
    def test_holding_more_of_the_prompt_is_never_worse(
        self, name: str, situation: tuple[RouteRequest, Snapshot], data: st.DataObject
    ) -> None:
        request, snapshot = situation
        at = data.draw(st.integers(0, len(snapshot.replicas) - 1))
        view = snapshot.replicas[at]
        fit = LatencyFit((0.1, 0.2, 0.01), (0.01, 0.001, 0.001), 100)
        fleet = tuple(replace(v, latency=fit) for v in snapshot.replicas)
        held = snapshot.overlap_blocks.get(view.replica_id, 0)
        most = min(len(request.block_hashes), request.prompt_tokens // view.info.block_size)
        more = {**snapshot.overlap_blocks, view.replica_id: max(held, most)}
        scorer = build_scorer(name)
        less_held = scorer.scores(request, Snapshot(snapshot.now_s, fleet, snapshot.overlap_blocks))
        more_held = scorer.scores(request, Snapshot(snapshot.now_s, fleet, more))
        assert more_held[at] >= less_held[at]


@pytest.mark.parametrize("name", policy_names())
def test_unknown_policy_parameters_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match="no_such_thing"):
        build_policy(name, {"no_such_thing": 1})


@pytest.mark.parametrize("name", scorer_names())
def test_unknown_scorer_parameters_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match="no_such_thing"):
        build_scorer(name, {"no_such_thing": 1})


def test_unknown_names_are_listed_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown routing policy 'best'.*round-robin"):
        build_policy("best")
    with pytest.raises(ConfigError, match=r"unknown scorer 'best'.*prefix-overlap"):
        build_policy("weighted", {"scorers": {"best": 1.0}})


@pytest.mark.parametrize("scorers", [{}, {"prefix-overlap": -1}, {"prefix-overlap": "much"}])
def test_useless_profiles_are_refused(scorers: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"weighted\.scorers"):
        build_policy("weighted", {"scorers": scorers})


def test_params_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        router.scorers.weighted.WeightedParams().scorers = {}  # type: ignore[misc]
