"""Blocks outside the device: what is known of them, and what it makes of a choice."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import router.scorers  # noqa: F401  (registers the policies)
from router.kv_events import EventStream, decode
from router.policy import build_policy
from router.prefix_index import PrefixIndex
from router.router import Router
from router.tiers import (
    DISK,
    MEMORY,
    USUAL_DISK_LOAD_S,
    USUAL_MEMORY_LOAD_S,
    Beyond,
    TierIndex,
    TierUse,
    load_work,
)
from router.types import ReplicaInfo, ReplicaStats, RouteRequest

PROMPT = tuple(range(100, 120))


def index_of(**held: tuple[int, int]) -> TierIndex:
    """Replica → so many leading blocks in memory, and on disk."""
    index = TierIndex()
    for replica_id, (memory, disk) in held.items():
        index.stored(replica_id, PROMPT[:memory], MEMORY)
        index.stored(replica_id, PROMPT[:disk], DISK)
    return index


def test_what_is_on_the_device_is_no_tiers_business() -> None:
    index = index_of(a=(8, 12), b=(0, 5), c=(4, 4))
    assert index.beyond(PROMPT, {"a": 2, "c": 4}) == {"a": Beyond(6, 4), "b": Beyond(0, 5)}
    assert index.beyond(PROMPT[:6], {}) == {"a": Beyond(6, 0), "b": Beyond(0, 5), "c": Beyond(4, 0)}
    assert index.beyond((), {}) == {}


def test_a_block_leaves_one_tier_and_stays_in_the_other() -> None:
    index = index_of(a=(3, 3))
    index.removed("a", PROMPT[1:3], MEMORY)
    assert index.beyond(PROMPT, {}) == {"a": Beyond(1, 2)}
    index.removed("a", PROMPT[:3], DISK)
    assert (index.beyond(PROMPT, {}), index.blocks("a")) == ({"a": Beyond(1, 0)}, 1)
    index.removed("a", PROMPT[:1], MEMORY)
    index.removed("stranger", PROMPT, MEMORY)
    assert not index.held


def test_a_replica_that_left_holds_nothing() -> None:
    index = PrefixIndex()
    index.add_replica("a", 10)
    index.tiers.stored("a", PROMPT, DISK)
    index.remove_replica("a")
    assert not index.tiers.held


@given(
    ends=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4),
    on_device=st.integers(0, 20),
    asked=st.integers(0, 20),
)
def test_beginnings_are_found_exactly(
    ends: list[tuple[int, int]], on_device: int, asked: int
) -> None:
    index = index_of(**{f"r{number}": pair for number, pair in enumerate(ends)})
    found = index.beyond(PROMPT[:asked], dict.fromkeys(("r0", "r1", "r2", "r3"), on_device))
    for number, (memory, disk) in enumerate(ends):
        beyond = found.get(f"r{number}", Beyond(0, 0))
        whole = min(asked, max(memory, disk))
        assert on_device + sum(beyond) == max(on_device, whole)
        assert beyond.memory == max(0, min(asked, memory) - on_device)


@given(held=st.sets(st.integers(0, 19)), on_device=st.integers(0, 19))
def test_with_holes_the_last_block_claimed_is_there(held: set[int], on_device: int) -> None:
    index = TierIndex()
    index.stored("a", [PROMPT[at] for at in held], DISK)
    for beyond in index.beyond(PROMPT, {"a": on_device}).values():
        assert on_device in held
        assert on_device + beyond.disk - 1 in held


def test_loading_costs_what_the_replica_measured() -> None:
    use = TierUse(memory_load_s=0.001, disk_load_s=0.002)
    assert load_work(Beyond(3, 2), use, 1e-4) == pytest.approx(50 + 40)
    usual = 5 * USUAL_MEMORY_LOAD_S + 2 * USUAL_DISK_LOAD_S
    assert load_work(Beyond(3, 2), None, 1e-3) == pytest.approx(usual * 1e3)
    assert load_work(Beyond(3, 2), TierUse(), 0.0) > 0


def events(index: PrefixIndex, *told: dict[str, Any], seq: int = 0) -> EventStream:
    stream = EventStream(index, "a", 16)
    raw = msgspec.msgpack.encode([1.0, list(told), 0])
    batch = decode([b"kv", seq.to_bytes(8, "big"), raw])
    assert batch is not None
    stream.live(batch)
    return stream


def told(kind: str, hashes: list[int], medium: str, **more: Any) -> dict[str, Any]:
    stored = {"parent_block_hash": None, "token_ids": [], "block_size": 0}
    named = {"type": kind, "block_hashes": hashes, "medium": medium, "group_idx": 0}
    return named | (stored if kind == "BlockStored" else {}) | more


def test_events_say_where_a_block_is() -> None:
    index = PrefixIndex()
    index.add_replica("a", 100)
    stream = events(
        index,
        told("BlockStored", [*PROMPT], "STORAGE"),
        told("BlockStored", [*PROMPT[:5]], "CPU"),
        told("BlockStored", [*PROMPT[:9]], "CPU", group_idx=1),
        told("BlockRemoved", [*PROMPT[3:5]], "CPU"),
        told("BlockStored", [*PROMPT[:2]], "GPU", block_size=16),
        told("BlockStored", [*PROMPT], "SOMEWHERE"),
        {"type": "AllBlocksCleared"},
    )
    assert index.lookup(PROMPT, 0.0) == {}
    assert index.tiers.beyond(PROMPT, {}) == {"a": Beyond(3, 17)}
    stream.rebuild([])
    assert not index.tiers.held


def router_of(**stats: TierUse) -> Router:
    clock = iter(range(1, 1000)).__next__
    made = Router(build_policy("weir"), lambda: float(clock()), random.Random(0))
    made.set_replicas(ReplicaInfo(name, attention_tokens=1e12) for name in ("a", "b"))
    for name, use in stats.items():
        made.update_stats(name, ReplicaStats(tiers=use))
    return made


def ask(router: Router, number: int = 0) -> RouteRequest:
    return RouteRequest(f"q{number}", "m", "t", 16 * len(PROMPT), 4, block_hashes=PROMPT)


def test_a_prompt_goes_to_whoever_can_load_it() -> None:
    for holder in ("a", "b"):
        made = router_of()
        made.index.tiers.stored(holder, PROMPT, DISK)
        assert made.choose(ask(made)).decision.replica_id == holder


def test_memory_is_nearer_than_disk_and_the_device_nearer_than_both() -> None:
    made = router_of()
    made.index.tiers.stored("a", PROMPT, DISK)
    made.index.tiers.stored("b", PROMPT, DISK)
    made.index.tiers.stored("b", PROMPT, MEMORY)
    assert made.choose(ask(made)).decision.replica_id == "b"
    made = router_of()
    made.index.tiers.stored("b", PROMPT, MEMORY)
    made.index.dispatched("a", PROMPT, 0.0)
    assert made.choose(ask(made)).decision.replica_id == "a"


def test_loading_that_takes_longer_than_computing_attracts_nobody() -> None:
    slow = TierUse(disk_load_s=1.0)
    made = router_of(a=slow)
    made.index.tiers.stored("a", PROMPT, DISK)
    assert made.choose(ask(made)).decision.replica_id == "b"


def test_what_is_loaded_is_not_counted_as_prefill() -> None:
    computed = router_of()
    computed.choose(ask(computed))
    loaded = router_of()
    loaded.index.tiers.stored("a", PROMPT, MEMORY)
    loaded.choose(ask(loaded))
    whole = sum(computed.own_load(rid).prefill_tokens for rid in ("a", "b"))
    rest = loaded.own_load("a").prefill_tokens
    assert whole == 16 * len(PROMPT)
    # Twenty blocks at the usual time each, by the usual speed of prefill.
    assert rest == pytest.approx(20 * USUAL_MEMORY_LOAD_S / 1e-4, abs=1)


def test_without_tiers_a_snapshot_has_none() -> None:
    made = router_of()
    view = made.view()
    assert made._asked(ask(made), 1.0, {}, view.columns).tiered is None
