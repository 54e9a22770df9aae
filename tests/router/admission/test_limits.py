"""Room on replicas, limit by limit; whatever is registered is tested for what all must keep."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from router.admission import Room, Share
from router.admission.limit import Standing, build_limits, limit_names, narrowest, register
from router.admission.limits.kv import KvLimit, KvParams
from router.held import NOTHING_HELD, Held
from router.snapshot import Columns, Snapshot
from router.types import ReplicaInfo, ReplicaLoad, ReplicaStats, ReplicaView, RouteRequest
from router.view import View
from weir.errors import ConfigError

LIMITS: dict[str, dict[str, Any] | None] = {
    "prefill": {"tokens": 1000},
    "kv": {"fill": 1.0, "stats_max_age_s": 1.0},
}
HALF = Share(0.5, 0.5, 0.5)


def request(prompt: int = 160, output: int = 160) -> RouteRequest:
    return RouteRequest("r", "m", "t", prompt, output, output, block_hashes=(1,))


def view(
    name: str = "a",
    load: ReplicaLoad | None = None,
    stats: ReplicaStats | None = None,
    blocks: int = 0,
    max_running: int = 8,
) -> ReplicaView:
    info = ReplicaInfo(name, kv_blocks_total=blocks, block_size=16, max_running=max_running)
    return ReplicaView(info, load or ReplicaLoad(), stats or ReplicaStats(at_s=-10.0))


def room(
    *views: ReplicaView,
    held: Mapping[str, int] | None = None,
    limits: Mapping[str, Mapping[str, Any] | None] = LIMITS,
    eviction_age_s: Callable[[str], float] = lambda _: math.inf,
    thrashing: bool = True,
    columns: Columns | None = None,
) -> Room:
    found = View(
        0.0,
        columns or Snapshot(0.0, views).columns,
        lambda hashes: Held.of(held or {}),
        eviction_age_s,
        keeping=True,
        thrashing=thrashing,
    )
    return Room(found, build_limits(limits))


def saturated(
    *views: ReplicaView, share: Share | None = None, ask: RouteRequest | None = None, **more: Any
) -> frozenset[str] | None:
    return room(*views, **more).saturated_for(ask or request(), share or Share())


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
    capacity = room(columns=columns)
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


def test_blocks_held_need_no_new_ones():
    busy = view(load=ReplicaLoad(1), stats=ReplicaStats(1, 0, 90, 0.0), blocks=100)
    assert saturated(busy, held={"a": 10}) == frozenset()
    assert saturated(busy) is None


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
    views = view("holder", ReplicaLoad(1, 3000)), view("other", ReplicaLoad(1, 3000))

    def full(blocks: int, per_token: float = 1.0) -> frozenset[str] | None:
        limits = {"prefill": {"tokens": 2500, "cached_token_room": per_token}}
        return saturated(*views, held={"holder": blocks}, limits=limits, ask=request(1600))

    assert full(0) is None
    assert full(31) is None  # 496 tokens are not enough
    assert full(32) == {"other"}
    assert full(4, per_token=8.0) == {"other"}


def test_what_a_cache_spares_is_no_place_and_no_kv():
    busy = view("a", ReplicaLoad(8, 3000), max_running=8)
    small = view("a", ReplicaLoad(1, 3000, 0, 1500), blocks=100)
    for one in (busy, small):
        assert saturated(one, held={"a": 10}, ask=request(1600)) is None


#: Of 1,600 tokens of KV, 1,000 are cold.
COLD = {"working-set": {"cold_part": 0.625, "keep_s": 60.0}, "kv": None}


def small(name: str, load: ReplicaLoad | None = None) -> ReplicaView:
    return view(name, load or ReplicaLoad(1, 10), blocks=100)


@pytest.mark.parametrize(
    ("prompt", "held", "eviction_age_s", "waits"),
    [
        (1000, 0, 59.0, True),
        (999, 0, 59.0, False),  # not long
        (1160, 11, 59.0, False),  # not cold: 984 tokens to compute
        (1160, 10, 59.0, True),
        (1000, 0, 60.0, False),  # what it would push out is no longer in use
        (1000, 0, float("inf"), False),  # there is space
    ],
)
def test_a_cold_prompt_does_not_push_out_prefixes_in_use(prompt, held, eviction_age_s, waits):
    capacity = room(
        small("a"), held={"a": held}, limits=COLD, eviction_age_s=lambda _: eviction_age_s
    )
    assert (capacity.saturated_for(request(prompt), Share()) is None) is waits
    assert capacity.holds_back(request(prompt), Share()) is waits


def test_without_thrashing_a_cold_prompt_chooses_what_it_pushes_out_but_does_not_wait():
    def without_room(*, hot: float, old: float) -> frozenset[str] | None:
        eviction_age_s = {"hot": hot, "old": old}
        views = small("hot"), small("old")
        capacity = room(
            *views, limits=COLD, eviction_age_s=eviction_age_s.__getitem__, thrashing=False
        )
        assert not capacity.holds_back(request(1000), Share())
        return capacity.saturated_for(request(1000), Share())

    assert without_room(hot=1.0, old=60.0) == {"hot"}
    assert without_room(hot=1.0, old=59.0) == frozenset()


def test_a_cold_prompt_starts_where_it_harms_nobody_or_when_it_has_aged():
    views = small("a"), small("idle", ReplicaLoad())
    capacity = room(*views, limits=COLD, eviction_age_s=lambda _: 1.0)
    assert capacity.saturated_for(request(5000), Share()) == {"a"}
    assert capacity.saturated_for(request(5000), Share(crowd_out=True)) == frozenset()
    assert not capacity.holds_back(request(5000), Share(crowd_out=True))


def test_what_is_cold_grows_with_the_replicas_kv_and_needs_it_to_be_known():
    limits = {"working-set": {"cold_part": 0.5}, "kv": None}
    larger = view("large", ReplicaLoad(1, 10), blocks=1000)
    unknown = view("unknown", ReplicaLoad(1, 10))
    more: dict[str, Any] = {"limits": limits, "eviction_age_s": lambda _: 1.0}
    assert saturated(small("small"), larger, ask=request(4000), **more) == {"small"}
    assert saturated(unknown, ask=request(4000), **more) == frozenset()


def test_the_index_is_asked_once_and_only_where_room_is_lacking():
    asked = []

    def lookup(hashes: tuple[int, ...]) -> Held:
        asked.append(hashes)
        return NOTHING_HELD

    roomy = view(load=ReplicaLoad(1), stats=ReplicaStats(1, 0, 10, 0.0), blocks=100)
    found = View(0.0, Snapshot(0.0, (roomy,)).columns, lookup, lambda _: math.inf)
    capacity = Room(found, build_limits({**LIMITS, "working-set": None}))
    assert capacity.saturated_for(request(), Share()) == frozenset()
    assert asked == []
    assert capacity.saturated_for(request(3000), Share()) is None
    assert capacity.saturated_for(request(3000), Share()) is None
    assert asked == [(1,)]


def standing(**more: Any) -> Standing:
    calm = Standing(HALF, False, math.inf, 1.0, 1, 4, 4)
    return calm._replace(**more)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, Share()),
        ({"urgent_idle_s": 0.0}, HALF),
        ({"urgent_idle_s": 9.9}, HALF),
        ({"urgent_idle_s": 10.0}, Share()),
        ({"most_urgent": True}, HALF),
        ({"tenant_in_flight": 2}, Share()),
        ({"tenant_in_flight": 3}, Share(prefill=0.1)),
        ({"tenant_in_flight": 3, "tenant_weight": 2.0}, Share()),
        ({"tenant_in_flight": 3, "urgent_idle_s": 0.0}, Share(0.1, 0.5, 0.5)),
    ],
)
def test_how_far_a_class_and_a_heavy_tenant_may_fill_a_replica(where, expected):
    assert narrowest(build_limits({}), standing(**where), Share()) == expected


class TestEveryLimit:
    """Whatever is registered keeps these."""

    @pytest.mark.parametrize("name", limit_names())
    def test_only_busy_replicas_lack_room_and_nothing_is_invented(self, name: str) -> None:
        rng = random.Random(name)
        (limit,) = build_limits({other: None for other in limit_names() if other != name})
        for _ in range(200):
            views = tuple(
                view(
                    f"r{n}",
                    ReplicaLoad(rng.randrange(10), rng.randrange(9000), rng.randrange(500), 900),
                    ReplicaStats(1, 0, rng.randrange(100), rng.choice((0.0, -9.0))),
                    blocks=rng.choice((0, 100)),
                )
                for n in range(rng.randint(1, 5))
            )
            held = {f"r{n}": rng.randrange(20) for n in range(3)}
            share = Share(*(rng.choice((0.1, 0.5, 1.0)) for _ in range(3)), rng.random() < 0.5)
            ask = request(rng.randint(1, 5000), rng.randint(1, 500))
            idle = {v.replica_id for v in views if not v.load.requests}
            made = room(
                *views,
                held=held,
                limits={other: None for other in limit_names() if other != name},
                eviction_age_s=lambda _: 1.0,
                thrashing=rng.random() < 0.5,
            )
            first, again = (made.saturated_for(ask, share) for _ in range(2))
            assert first == again, "pure"
            busy = [n for n, v in enumerate(views) if v.load.requests]
            if limit.room_everywhere(ask, share, made._view):
                assert limit.with_room(ask, share, made._view, busy) == busy
            room_on = [n for n in busy if limit.room_on(ask, share, made._view, n)]
            assert {*room_on} <= {*limit.with_room(ask, share, made._view, busy)}
            if first is None:
                assert not idle
            else:
                assert first <= {v.replica_id for v in views} - idle
            found = limit.share(standing(tenant_in_flight=rng.randrange(9)))
            assert found is None or isinstance(found, Share)

    @pytest.mark.parametrize("name", limit_names())
    def test_it_can_be_switched_off_and_says_what_it_takes(self, name: str) -> None:
        assert len(build_limits({name: None})) == len(limit_names()) - 1
        with pytest.raises(ConfigError, match=rf"admission.limits {name}.nonsense"):
            build_limits({name: {"nonsense": 1}})

    def test_an_unknown_one_is_an_error_that_names_the_known(self) -> None:
        with pytest.raises(ConfigError, match="working-set"):
            build_limits({"nonsense": {}})

    def test_a_name_is_taken_once(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            register("kv", KvParams)(KvLimit)


@pytest.mark.parametrize(
    "bad",
    [
        {"kv": {"fill": 0.0}},
        {"kv": {"fill": 1.1}},
        {"prefill": {"tokens": 0}},
        {"places": {"running": 0}},
        {"working-set": {"cold_part": 0}},
        {"heavy-tenant": {"times": 0.5}},
        {"heavy-tenant": {"prefill": 0}},
        {"head-room": {"after_s": -1}},
    ],
)
def test_impossible_limits_are_config_errors(bad):
    with pytest.raises(ConfigError):
        build_limits(bad)
