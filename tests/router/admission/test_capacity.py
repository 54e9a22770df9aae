"""Room on replicas, from a snapshot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.admission import ReplicaLimits, Share, SnapshotCapacity
from router.types import (
    ReplicaInfo,
    ReplicaLoad,
    ReplicaStats,
    ReplicaView,
    RouteRequest,
    Snapshot,
)
from weir.errors import ConfigError

LIMITS = ReplicaLimits(prefill_tokens=1000, kv_fill=1.0, stats_max_age_s=1.0)
HALF = Share(0.5, 0.5, 0.5)


def request(prompt: int = 160, output: int = 160) -> RouteRequest:
    return RouteRequest("r", "m", "t", prompt, output, output)


def view(
    name: str = "a",
    load: ReplicaLoad | None = None,
    stats: ReplicaStats | None = None,
    blocks: int = 0,
    max_running: int = 8,
) -> ReplicaView:
    info = ReplicaInfo(name, kv_blocks_total=blocks, block_size=16, max_running=max_running)
    return ReplicaView(info, load or ReplicaLoad(), stats or ReplicaStats(at_s=-10.0))


def saturated(
    *views: ReplicaView, share: Share | None = None, ask: RouteRequest | None = None
) -> frozenset[str] | None:
    capacity = SnapshotCapacity(Snapshot(0.0, views), LIMITS)
    return capacity.saturated_for(ask or request(), share or Share())


def test_no_replica_has_no_room():
    assert saturated() is None


def test_an_empty_replica_has_room_for_anything():
    giant = request(1_000_000, 1_000_000)
    assert saturated(view(blocks=10), share=HALF, ask=giant) == frozenset()


@pytest.mark.parametrize(
    ("outstanding", "share", "fits"),
    [(999, Share(), True), (1000, Share(), False), (339, HALF, True), (340, HALF, False)],
)
def test_prefill_tokens_which_only_the_whole_share_may_overshoot(outstanding, share, fits):
    busy = view(load=ReplicaLoad(1, outstanding, 0))
    assert (saturated(busy, share=share) is not None) is fits


def test_a_long_prompt_of_a_class_that_leaves_head_room_waits_for_a_replica_without_prompts():
    long = request(5000)
    assert saturated(view(load=ReplicaLoad(1, 1, 0)), share=HALF, ask=long) is None
    assert saturated(view(load=ReplicaLoad(1, 0, 0)), share=HALF, ask=long) is not None


def test_with_the_whole_share_what_is_thought_to_be_done_is_room():
    columns = Snapshot(0.0, (view(load=ReplicaLoad(1, 1500)),)).columns
    columns.prefill_work = [900.0]
    capacity = SnapshotCapacity(Snapshot(0.0, columns=columns), LIMITS)
    assert capacity.saturated_for(request(), Share()) is not None
    assert capacity.saturated_for(request(), Share(prefill=0.9)) is None


@pytest.mark.parametrize(
    ("running", "share", "fits"),
    [(7, Share(), True), (8, Share(), False), (3, HALF, True), (4, HALF, False)],
)
def test_requests(running, share, fits):
    assert (saturated(view(load=ReplicaLoad(running)), share=share) is not None) is fits


@pytest.mark.parametrize(
    ("used", "share", "fits"),
    [(80, Share(), True), (81, Share(), False), (30, HALF, True), (31, HALF, False)],
)
def test_kv_blocks(used, share, fits):
    busy = view(load=ReplicaLoad(1), stats=ReplicaStats(1, 0, used, 0.0), blocks=100)
    assert (saturated(busy, share=share) is not None) is fits


@pytest.mark.parametrize(
    ("prefilling", "part", "expected"),
    [
        (2, 0.75, {"p0", "p1"}),  # a third one may start, on the least busy
        (3, 0.75, None),
        (3, 1.0, {"p0", "p1", "p2"}),
        (1, 0.1, None),
    ],
)
def test_a_part_of_the_fleet_is_kept_free_of_prompts(prefilling, part, expected):
    views = [view(f"p{n}", ReplicaLoad(1, 999)) for n in range(prefilling)]
    views += [view(f"d{n}", ReplicaLoad(1, 0)) for n in range(4 - prefilling)]
    share = Share(prefill=0.5, prefilling=part)
    assert saturated(*views, share=share) == expected


def test_a_replica_that_has_prompts_already_may_get_more():
    views = view("p", ReplicaLoad(1, 10)), view("d", ReplicaLoad(1, 0))
    assert saturated(*views, share=Share(prefilling=0.5)) == {"d"}


def test_blocks_held_need_no_new_ones():
    busy = view(load=ReplicaLoad(1), stats=ReplicaStats(1, 0, 90, 0.0), blocks=100)
    snapshot = Snapshot(0.0, (busy,))
    capacity = SnapshotCapacity(snapshot, LIMITS, overlap=lambda r: {"a": 10})
    assert capacity.saturated_for(request(), Share()) == frozenset()
    assert SnapshotCapacity(snapshot, LIMITS).saturated_for(request(), Share()) is None


def test_the_saturated_are_named_while_another_has_room():
    full, free = view("full", ReplicaLoad(8)), view("free", ReplicaLoad(2))
    assert saturated(full, free) == {"full"}
    assert saturated(full, full) is None


@pytest.mark.parametrize(
    ("load", "fits"),
    [
        (ReplicaLoad(2, 0, 280, 1000), True),  # 1000 held, 280 to come, 320 asked: 1600 there
        (ReplicaLoad(2, 0, 281, 1000), False),
        (ReplicaLoad(2, 400, 280, 1000), True),  # what is to prefill is part of the context
    ],
)
def test_without_fresh_stats_the_ledger_stands_for_the_kv_cache(load, fits):
    assert (saturated(view(load=load, blocks=100)) is not None) is fits


def test_fresh_stats_stand_for_the_kv_cache_and_the_ledger_for_what_is_to_come():
    stats = ReplicaStats(2, 0, 60, at_s=0.0)
    assert saturated(view(load=ReplicaLoad(2, 200, 120, 9999), stats=stats, blocks=100)) is not None
    assert saturated(view(load=ReplicaLoad(2, 201, 120, 9999), stats=stats, blocks=100)) is None


def test_what_a_cache_spares_is_room_there():
    limits = ReplicaLimits(prefill_tokens=2500, cached_token_room=1.0)
    views = view("holder", ReplicaLoad(1, 3000)), view("other", ReplicaLoad(1, 3000))

    def full(blocks: int, room: float = 1.0) -> frozenset[str] | None:
        capacity = SnapshotCapacity(
            Snapshot(0.0, views),
            replace(limits, cached_token_room=room),
            lambda _: {"holder": blocks},
        )
        return capacity.saturated_for(request(1600), Share())

    assert full(0) is None
    assert full(31) is None  # 496 tokens are not enough
    assert full(32) == {"other"}
    assert full(4, room=8.0) == {"other"}


def test_what_a_cache_spares_is_no_place_and_no_kv():
    busy = view("a", ReplicaLoad(8, 3000), max_running=8)
    small = view("a", ReplicaLoad(1, 3000, 0, 1500), blocks=100)
    for one in (busy, small):
        capacity = SnapshotCapacity(Snapshot(0.0, (one,)), LIMITS, lambda _: {"a": 10})
        assert capacity.saturated_for(request(1600), Share()) is None


COLD = ReplicaLimits(cold_tokens=1000, keep_prefixes_s=60.0)


@pytest.mark.parametrize(
    ("prompt", "held", "unused_s", "waits"),
    [
        (1000, 0, 59.0, True),
        (999, 0, 59.0, False),  # not long
        (1160, 11, 59.0, False),  # not cold: 984 tokens to compute
        (1160, 10, 59.0, True),
        (1000, 0, 60.0, False),  # what it would push out is no longer in use
        (1000, 0, float("inf"), False),  # there is space
    ],
)
def test_a_cold_prompt_does_not_push_out_prefixes_in_use(prompt, held, unused_s, waits):
    busy = view("a", ReplicaLoad(1, 10))
    capacity = SnapshotCapacity(
        Snapshot(0.0, (busy,)), COLD, lambda _: {"a": held}, lambda _: unused_s
    )
    assert (capacity.saturated_for(request(prompt), Share()) is None) is waits
    assert capacity.holds_back(request(prompt), Share()) is waits


def test_without_thrashing_a_cold_prompt_chooses_what_it_pushes_out_but_does_not_wait():
    views = view("hot", ReplicaLoad(1, 10)), view("old", ReplicaLoad(1, 10))

    def room(*, hot: float, old: float) -> frozenset[str] | None:
        unused_s = {"hot": hot, "old": old}
        capacity = SnapshotCapacity(
            Snapshot(0.0, views), COLD, lambda _: {}, unused_s.__getitem__, thrashing=False
        )
        assert not capacity.holds_back(request(1000), Share())
        return capacity.saturated_for(request(1000), Share())

    assert room(hot=1.0, old=60.0) == {"hot"}
    assert room(hot=1.0, old=59.0) == frozenset()


def test_a_cold_prompt_starts_where_it_harms_nobody_or_when_it_has_aged():
    views = view("a", ReplicaLoad(1, 10)), view("idle")
    capacity = SnapshotCapacity(Snapshot(0.0, views), COLD, lambda _: {}, lambda _: 1.0)
    assert capacity.saturated_for(request(5000), Share()) == {"a"}
    assert capacity.saturated_for(request(5000), Share(crowd_out=True)) == frozenset()
    assert not capacity.holds_back(request(5000), Share(crowd_out=True))


def test_the_index_is_asked_only_where_the_kv_cache_lacks_room():
    asked = []

    def overlap(request: RouteRequest) -> dict[str, int]:
        asked.append(request.request_id)
        return {}

    roomy = view(load=ReplicaLoad(1), stats=ReplicaStats(1, 0, 10, 0.0), blocks=100)
    capacity = SnapshotCapacity(Snapshot(0.0, (roomy,)), LIMITS, overlap)
    assert capacity.saturated_for(request(), Share()) == frozenset()
    assert asked == []
    assert capacity.saturated_for(request(3000), Share()) is None
    assert asked == ["r"]


@pytest.mark.parametrize("bad", [0.0, 1.1])
def test_impossible_limits_are_config_errors(bad):
    with pytest.raises(ConfigError):
        Share(prefill=bad)
    with pytest.raises(ConfigError):
        ReplicaLimits(kv_fill=bad)
    with pytest.raises(ConfigError):
        ReplicaLimits(prefill_tokens=0)
