"""Room on replicas, from a snapshot."""

from __future__ import annotations

import pytest

from router.admission import ReplicaLimits, Share, SnapshotCapacity
from router.admission.capacity import Occupancy, occupancy
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
    [(999, Share(), True), (1000, Share(), False), (499, HALF, True), (500, HALF, False)],
)
def test_prefill_tokens(outstanding, share, fits):
    busy = view(load=ReplicaLoad(1, outstanding, 0))
    assert (saturated(busy, share=share) is not None) is fits


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


def test_stats_count_requests_of_others_while_fresh():
    load, stats = ReplicaLoad(2, 100, 60), ReplicaStats(5, 2, 40, at_s=10.0)
    assert occupancy(view(load=load, stats=stats), 11.0, LIMITS) == Occupancy(100, 7, 50)
    assert occupancy(view(load=load, stats=stats), 11.1, LIMITS) == Occupancy(100, 2, 50)


@pytest.mark.parametrize("bad", [0.0, 1.1])
def test_impossible_limits_are_config_errors(bad):
    with pytest.raises(ConfigError):
        Share(prefill=bad)
    with pytest.raises(ConfigError):
        ReplicaLimits(kv_fill=bad)
    with pytest.raises(ConfigError):
        ReplicaLimits(prefill_tokens=0)
