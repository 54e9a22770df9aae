"""What a request would take, as admission asks."""

from __future__ import annotations

import random

import pytest

import router.scorers  # noqa: F401  (registers the policies)
from router.forecast import Forecast
from router.ledger import Outlook
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, RouteRequest


@pytest.fixture
def router_() -> Router:
    made = Router(build_policy("weir", {}), lambda: 10.0, random.Random(1))
    made.set_replicas([ReplicaInfo("a", block_size=16), ReplicaInfo("b", block_size=16)])
    return made


def ask(tokens: int = 100, output: int = 50) -> RouteRequest:
    hashes = tuple(range(1, 1 + tokens // 16))
    return RouteRequest("q", "m", "t", tokens, output, output, block_hashes=hashes)


def found(router: Router, request: RouteRequest) -> Forecast:
    view = router.view()
    return Forecast(request, view, router.latency.fit(), view.most_cached_tokens(request))


def test_nothing_learned_and_nothing_cached(router_: Router) -> None:
    expected = found(router_, ask())
    assert expected.uncached_tokens == 100
    assert (expected.first_token_s(), expected.last_token_s()) == (0, 0)


def test_the_best_holder_counts_and_the_last_token_is_computed(router_: Router) -> None:
    router_.index.stored("a", (1, 2))
    router_.index.stored("b", (1, 2, 3))
    assert found(router_, ask()).uncached_tokens == 52
    router_.index.stored("b", (4, 5, 6, 7), parent=3)
    assert found(router_, ask(112)).uncached_tokens == 1


def test_times_come_from_what_was_learned_of_the_fleet(router_: Router) -> None:
    for n in range(200):
        tokens, requests = 100 * (n % 7), 1 + n % 3
        outlook = Outlook(0.0, tokens, requests, 1000 * requests)
        router_.latency.first_token("a", outlook, 0.05 + tokens / 1000.0)
        router_.latency.finished("b", outlook, 0.02, 10)
    expected = found(router_, ask(400, 50))
    assert expected.first_token_s() == pytest.approx(0.45, rel=0.1)
    assert expected.last_token_s() == pytest.approx(1.45, rel=0.1)


def test_without_members_there_is_nothing_to_foresee() -> None:
    alone = Router(build_policy("weir", {}), lambda: 10.0, random.Random(1))
    assert found(alone, ask()).uncached_tokens == 100
