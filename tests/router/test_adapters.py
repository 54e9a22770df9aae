"""Where LoRA adapters are, as the router sees it, and what that does to its choice."""

from __future__ import annotations

import random

import pytest

from router.adapters import ALL_BUSY, EVICTION, USUAL_LOAD_S, AdapterBook
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, RouteRequest

#: Into full slots, of which some are free: 10 tokens a load.
FULL = 10.0 * (1.0 + EVICTION)


def _request(number: int, adapter: str | None, prompt_tokens: int = 10) -> RouteRequest:
    return RouteRequest(f"r{number}", "m", "t", prompt_tokens, 8, 8, adapter=adapter)


def _router(policy: str = "weir") -> Router:
    router = Router(build_policy(policy), lambda: 0.0, random.Random(1))
    router.set_replicas([ReplicaInfo("a"), ReplicaInfo("b")])
    return router


def test_a_load_costs_by_what_it_takes() -> None:
    book = AdapterBook()
    book.told("warm", ["x"], [], 2, 0.01)
    book.told("room", ["y"], [], 2, 0.01)
    book.told("full", ["y", "z"], ["y"], 2, 0.01)
    book.told("busy", ["y", "z"], ["y", "z"], 2, 0.01)
    costs = book.work("x", ["warm", "room", "full", "busy", "unheard"], 0.001)
    assert costs == pytest.approx([0.0, 10.0, FULL, 10.0 * ALL_BUSY, USUAL_LOAD_S * 1000])


def test_a_dispatch_counts_at_once_and_the_oldest_idle_adapter_leaves() -> None:
    book = AdapterBook()
    book.told("a", ["x", "y"], ["x"], 2, 0.01)
    book.dispatched("a", "z")
    assert book.loaded("a") == ("x", "z")
    book.dispatched("a", "x")
    assert book.loaded("a") == ("z", "x")
    book.forget("a")
    assert book.loaded("a") == ()


def test_nothing_leaves_slots_that_are_all_in_use() -> None:
    book = AdapterBook()
    book.told("a", ["x"], ["x"], 1, 0.01)
    book.dispatched("a", "y")
    assert book.loaded("a") == ("x",)


def test_a_slot_is_in_use_from_the_dispatch_to_the_end_whatever_the_replica_told_before() -> None:
    """It tells every 50 ms; two cold adapters within that time must not count on one slot."""
    book = AdapterBook()
    book.told("a", ["x", "y"], ["x"], 2, 0.01)
    book.told("b", ["x", "y"], ["x"], 2, 0.01)
    book.dispatched("a", "z")
    waits = 10.0 * ALL_BUSY
    assert book.work("w", ["a", "b"], 0.001) == pytest.approx([10.0 + waits, FULL])
    book.told("a", ["x", "y"], ["x"], 2, 0.01)  # it has not heard of z
    assert book.work("w", ["a", "b"], 0.001) == pytest.approx([10.0 + waits, FULL])
    book.dispatched("a", "w")
    assert book.work("v", ["a"], 0.001) == pytest.approx([20.0 + 2 * waits])
    book.released("a", "z")
    book.released("a", "w")
    assert book.work("v", ["a", "b"], 0.001) == pytest.approx([FULL, FULL])


def test_an_engine_stands_still_for_loads_that_are_still_to_come() -> None:
    book = AdapterBook()
    book.told("a", ["x"], [], 4, 0.01)
    book.dispatched("a", "y")
    assert book.work("x", ["a"], 0.001) == pytest.approx([10.0])
    book.started("a", "y")
    assert book.work("x", ["a"], 0.001) == pytest.approx([0.0])
    book.dispatched("a", "z")
    book.told("a", ["x", "y", "z"], ["y", "z"], 4, 0.01)
    assert book.work("x", ["a"], 0.001) == pytest.approx([0.0])


def test_who_ends_frees_the_slot_in_the_routers_eyes() -> None:
    router = _router()
    for name in ("a", "b"):
        router.adapters.told(name, ["x"], [], 1, 0.05)
    first = router.choose(_request(1, "x"))
    ids = [first.replica_id]
    before = router.adapters.work("y", ids, 0.001)
    first.release()
    first.release()
    assert before == pytest.approx([50.0 * ALL_BUSY])
    assert router.adapters.work("y", ids, 0.001) == pytest.approx([50.0 * (1.0 + EVICTION)])


def test_requests_follow_their_adapter() -> None:
    router = _router()
    router.adapters.told("a", [], [], 8, 0.05)
    router.adapters.told("b", ["x"], [], 8, 0.05)
    chosen = {router.choose(_request(n, "x")).decision.replica_id for n in range(5)}
    assert chosen == {"b"}


def test_an_adapter_is_not_worth_any_queue() -> None:
    router = _router()
    router.adapters.told("a", [], [], 8, 0.05)
    router.adapters.told("b", ["x"], [], 8, 0.05)
    chosen = [router.choose(_request(n, "x", 2000)).decision.replica_id for n in range(10)]
    assert set(chosen) == {"a", "b"}


def test_without_an_adapter_nothing_is_charged() -> None:
    router = _router()
    router.adapters.told("b", ["x"], [], 8, 5.0)
    ids = [router.choose(_request(n, None)).decision.replica_id for n in range(4)]
    assert set(ids) == {"a", "b"}


def test_a_replica_that_left_is_forgotten() -> None:
    router = _router()
    router.adapters.told("a", ["x"], [], 8, 0.05)
    router.set_replicas([ReplicaInfo("b")])
    assert router.adapters.loaded("a") == ()
