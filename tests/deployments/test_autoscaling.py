"""From a gateway's report through the process that decides to what Serve is told."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from deployments.autoscaling import TARGETS, DecidedReplicas, decided, decided_by, written
from deployments.control.scaling import LEASE, Round
from deployments.gateway.demand import FIGURES, REPORTS, SPILLS
from deployments.gateway.role_splits import SPLITS
from deployments.pools import pools_of, scales
from deployments.redis_server import RedisServer
from deployments.scaling_plans import scaling_plans
from tests.deployments.batches.begun import begin
from weir.autoscaling.explaining import explained
from weir.autoscaling.keeping import find, of_each_model
from weir.autoscaling.telling import (
    ClassTold,
    GatewayTold,
    ModelTold,
    ReplicaTold,
    pack,
    unpack_by_model,
    unpack_figures,
)
from weir.database import migrate, open_database, reading
from weir.errors import ConfigError
from weir.settings import Settings, parse_settings

TREE: dict[str, Any] = {
    "models": [
        {
            "name": "m",
            "source": "x",
            "autoscaling": {
                "min_replicas": 0,
                "max_replicas": 4,
                "capacity": {"prefill_tokens_per_s": 2000.0, "decode_tokens_per_s": 400.0},
            },
        },
        {"name": "fixed", "source": "x"},
    ],
    "autoscaling": {"params": {"down_after_s": 30.0}},
}


def settings_of(**more: Any) -> Settings:
    return parse_settings({**TREE, **more}, "test")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, port, folder / "redis.log")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    client = Redis.from_url(redis_server.url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(made)
    yield made
    made.dispose()


def tell(redis: Redis, at_s: float, arrivals: int, replicas: int, waiting: int = 0) -> None:
    """Requests of 50 tokens to compute and 50 to generate."""
    seen = ClassTold(arrivals, arrivals * 100, arrivals * 50, arrivals * 50)
    seen.waiting_requests, seen.waiting_tokens = waiting, 50.0 * waiting
    seen.waiting_output_tokens = 50.0 * waiting
    up = {f"r{i}": ReplicaTold("", True) for i in range(replicas)}
    told = GatewayTold("g", 900.0, at_s, {"m": ModelTold({"standard": seen}, up)})
    redis.hset(REPORTS, "g", pack(told))


def target(redis: Redis, at_s: float) -> int | None:
    raw: Any = redis.hget(TARGETS, "model-m")
    return decided(raw, at_s)


def test_only_models_that_scale_have_a_plan() -> None:
    (plan,) = scaling_plans(settings_of())
    assert plan.name == "m"
    assert (plan.pools[0].state.least, plan.pools[0].state.most) == (0, 4)
    assert plan.pools[0].state.usd_per_hour > 0
    assert plan.ttft_slo_s == 2.0
    assert set(plan.deferrable_s) == {"batch"}


def test_a_round_decides_writes_and_keeps(redis: Redis, engine: Engine) -> None:
    now = [1000.0]
    round_ = Round(settings_of(), redis, engine, lambda: now[0])
    assert round_.run() == []
    for second in range(0, 200, 5):
        now[0] = 1000.0 + second
        tell(redis, now[0], 20 * second, 1)
        round_.run()
    assert target(redis, now[0]) == 4
    assert set(redis.hkeys(TARGETS)) == {b"model-m"}
    for second in range(200, 500, 5):
        now[0] = 1000.0 + second
        tell(redis, now[0], 4000, 4)
        round_.run()
    assert target(redis, now[0]) == 0
    (figures,) = unpack_figures(redis.get(FIGURES))
    assert (figures.model, figures.pool, figures.target) == ("m", "m", 0)
    assert figures.start_seconds > 0
    with reading(engine) as connection:
        rows = find(connection, "m")
        (last,) = of_each_model(connection, now[0])
    assert last == rows[0]
    assert [row.changed for row in rows].count(True) >= 2
    # Kept once a minute where nothing changes, not every five seconds.
    assert 8 <= len(rows) <= 25
    assert {row.targets["m"] for row in rows} >= {0, 4}
    assert rows[-1].explanation.because
    assert rows[0].state.pools[0].capacity.usable == 0.8


def test_plans_have_the_prices_of_all_hours() -> None:
    night = {"from_hour": 22, "until_hour": 6, "usd_per_hour": 1.0}
    prices = {"hours": [{"usd_per_hour": 3.0, "at": [night]}]}
    (plan,) = scaling_plans(settings_of(prices=prices))
    pool = plan.pools[0].state
    assert [pool.usd_at(3600.0 * hour) for hour in (5, 6, 21, 22)] == [1.0, 3.0, 3.0, 1.0]


def test_a_batch_in_the_database_gets_replicas_in_time(redis: Redis, engine: Engine) -> None:
    now = [1000.0]
    round_ = Round(settings_of(), redis, engine, lambda: now[0])
    for second in range(0, 90, 5):
        now[0] = 1000.0 + second
        tell(redis, now[0], 0, 1)
        round_.run()
    assert target(redis, now[0]) == 0
    begin(engine, 1, 10_000, "m", now[0] + 3600.0)
    now[0] += 5
    tell(redis, now[0], 0, 1)
    (decided,) = round_.run()
    assert decided.targets["m"] > 0
    assert decided.model.backlog.lines == 10_000
    with reading(engine) as connection:
        (row,) = of_each_model(connection, now[0])
    assert row.state.backlog == decided.model.backlog
    assert "10,000 lines are left" in explained(row)


def test_another_process_goes_on_where_the_first_one_was(redis: Redis, engine: Engine) -> None:
    now = [1000.0]
    first = Round(settings_of(), redis, engine, lambda: now[0])
    second = Round(settings_of(), redis, engine, lambda: now[0])
    tell(redis, now[0], 0, 2)
    assert first.run()[0].targets == {"m": 2}
    assert second.run() == []
    assert redis.pttl(LEASE) > 0
    first.resign()
    now[0] += 40.0
    tell(redis, now[0], 0, 2)
    # A process without a memory would let nothing shrink for a minute.
    assert second.run()[0].targets == {"m": 0}
    assert first.run() == []


def test_a_gateway_that_is_gone_is_forgotten(redis: Redis, engine: Engine) -> None:
    tell(redis, 1000.0, 0, 1)
    redis.hset(REPORTS, "odd", b"\xff")
    Round(settings_of(), redis, engine, lambda: 1400.0).run()
    assert redis.hlen(REPORTS) == 0


def context(target_replicas: int) -> Any:
    return SimpleNamespace(target_num_replicas=target_replicas)


def test_serve_is_told_the_number_that_was_decided(redis_server: RedisServer, redis: Redis) -> None:
    policy = DecidedReplicas("model-m", redis_server.url, external=False)
    assert policy(context(2)) == (2, {})
    policy = DecidedReplicas("model-m", redis_server.url, external=False)
    redis.hset(TARGETS, "model-m", written(3, time.time()))
    assert policy(context(2)) == (3, {})
    # What another platform decided before this one began is not for this one.
    policy = DecidedReplicas("model-m", redis_server.url, external=False)
    assert policy(context(2)) == (2, {})


def test_an_old_number_or_none_leaves_what_is(redis_server: RedisServer, redis: Redis) -> None:
    redis.hset(TARGETS, "model-m", written(3, time.time() - 600.0))
    assert DecidedReplicas("model-m", redis_server.url, external=False)(context(2)) == (2, {})
    away = DecidedReplicas("model-m", "redis://127.0.0.1:1", external=False)
    assert away(context(5)) == (5, {})
    assert decided(b"much@too odd", 0.0) is None


def test_a_password_is_not_shown_by_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"mode": "external", "url": "redis://somewhere:6379/0"}
    monkeypatch.setenv("WEIR_REDIS_URL", "redis://:secret@somewhere:6379/0")
    settings = settings_of(redis=told)
    (pool,) = pools_of(settings.models[0])
    kwargs = decided_by(pool, settings)
    assert "secret" not in str(kwargs)
    assert kwargs["deployment"] == "model-m"


def spilling_settings(usd_per_request: float) -> Settings:
    """At most two replicas, which may leave three tenths of what may be spilled to a student."""
    tree = spilling_tree(usd_per_request)
    return parse_settings(tree, "test")


def spilling_tree(usd_per_request: float) -> dict[str, Any]:
    capacity = {"prefill_tokens_per_s": 2000.0, "decode_tokens_per_s": 400.0, "learned": False}
    bounds = {"min_replicas": 1, "max_replicas": 2, "capacity": capacity}
    spill = {"max_share": 0.3, "usd_per_request": usd_per_request}
    big = {
        "name": "m",
        "source": "x",
        "autoscaling": bounds,
        "price": {"replica_usd_per_hour": 4.0},
        "fallback": {"student": "s", "capacity": spill},
    }
    params = {"down_after_s": 30.0, "headroom": 0.0}
    models = [big, {"name": "s", "source": "x"}]
    return {"models": models, "autoscaling": {"params": params}}


def tell_spillable(redis: Redis, at_s: float, rate: float, since_s: float) -> None:
    """Requests of 100 tokens of output, of which half may be spilled, and a tenth of those are."""
    count = int(rate * (at_s - since_s))
    spilt = count // 20
    arrived = count - spilt
    seen = ClassTold(arrived, 10 * arrived, 10 * arrived, 100 * arrived)
    seen.may_spill, seen.spilt = count // 2, spilt
    up = {"r0": ReplicaTold("", True)}
    told = GatewayTold("g", 900.0, at_s, {"m": ModelTold({"standard": seen}, up)})
    redis.hset(REPORTS, "g", pack(told))


@pytest.mark.parametrize("usd", [1e-6, 1.0])
def test_the_student_is_taken_where_it_is_cheaper_than_a_replica(
    redis: Redis, engine: Engine, usd: float
) -> None:
    """A replica does 3.14 requests a second within its limits, and 3.4 come."""
    now = [1000.0]
    round_ = Round(spilling_settings(usd), redis, engine, lambda: now[0])
    for second in range(0, 120, 5):
        now[0] = 1000.0 + second
        tell_spillable(redis, now[0], 3.4, 1000.0)
        round_.run()
    raw: Any = redis.get(SPILLS)
    shares = unpack_by_model(raw, float)
    ttl_ms: Any = redis.pttl(SPILLS)
    assert 0 < ttl_ms <= 20_000
    with reading(engine) as connection:
        (kept,) = of_each_model(connection, now[0])
    demand = kept.state.classes["standard"]
    # What was spilled counts as the model's demand, or it would be got back at once.
    assert demand.arrivals_per_s == pytest.approx(3.4, rel=0.05)
    assert demand.may_spill_per_s == pytest.approx(1.7, rel=0.05)
    if usd < 1e-3:
        assert target(redis, now[0]) == 1
        # About eight in a hundred of all are too much for it: twice that of those that may spill.
        assert 0.1 < shares["m"]["standard"] < 0.22
        assert kept.spill_share == pytest.approx(shares["m"]["standard"] / 2, rel=0.05)
        told = [other.verdict for other in kept.explanation.alternatives]
        assert "without the student: dearer" in told
    else:
        assert target(redis, now[0]) == 2
        assert shares == {}
        assert kept.spill_share == 0


def test_a_share_for_the_student_needs_somebody_who_decides() -> None:
    tree = spilling_tree(0.1)
    del tree["models"][0]["autoscaling"]
    with pytest.raises(ConfigError, match=r"fallback\.capacity\.max_share.*needs autoscaling"):
        parse_settings(tree, "test")


def test_a_share_for_the_student_needs_a_price() -> None:
    tree = spilling_tree(0.1)
    del tree["models"][0]["fallback"]["capacity"]["usd_per_request"]
    with pytest.raises(ConfigError, match="usd_per_request"):
        parse_settings(tree, "test")


def test_a_pool_whose_roles_follow_the_demand_is_split_for_gateways(
    redis: Redis, engine: Engine
) -> None:
    pool = {"name": "a", "replicas": 4, "changes_role": "by_demand"}
    settings = parse_settings({"models": [{"name": "p", "source": "x", "pools": [pool]}]}, "test")
    assert scales(settings)
    (plan,) = scaling_plans(settings)
    assert (plan.pools[0].scales, plan.pools[0].state.splits) == (False, True)
    now = [1000.0]
    round_ = Round(settings, redis, engine, lambda: now[0])
    up = {f"r{i}": ReplicaTold("a", True) for i in range(4)}
    for second in range(0, 60, 5):
        now[0] = 1000.0 + second
        # As much time for prompts as for answers, by the capacity that is assumed.
        seen = ClassTold(second, 0, second * 4000, second * 1000)
        told = GatewayTold("g", 900.0, now[0], {"p": ModelTold({"standard": seen}, up)})
        redis.hset(REPORTS, "g", pack(told))
        round_.run()
    raw: Any = redis.get(SPLITS)
    assert unpack_by_model(raw, int) == {"p": {"a": 2}}
    assert 0 < redis.pttl(SPLITS) <= 60_000  # type: ignore[operator]
    assert not redis.exists(TARGETS)
    assert unpack_by_model(b"of another version", int) == {}
