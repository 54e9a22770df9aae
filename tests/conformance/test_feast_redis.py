"""What Feast writes into Redis, weir reads: every type, nulls, times, several views, namespaces.

Feast's own client is the judge: where both can say something, both must say the same.
"""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feast
import feast.types as ft
import pytest
import redis

from deployments.redis_server import RedisServer
from features.keys import entity_key
from features.online import (
    CacheSettings,
    FeatureReader,
    FeatureRow,
    FeatureSpec,
    ServicePlan,
    ServiceSpec,
    StoreAddress,
    StoreLink,
    ViewSpec,
)
from features.online.format import PROJECT, hash_key, murmur3_32, value_field
from features.repo import store_config

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

T0 = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
T1 = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
SCALARS: dict[str, tuple[Any, str, Any]] = {
    "text": (ft.String, "string", "Zoë – ☂"),
    "empty": (ft.String, "string", ""),
    "long_text": (ft.String, "string", "x" * 5000),
    "big": (ft.Int64, "int", 2**62 + 1),
    "small": (ft.Int32, "int", -7),
    "zero": (ft.Int64, "int", 0),
    "ratio": (ft.Float64, "float", -0.125),
    "short_ratio": (ft.Float32, "float", 0.5),
    "yes": (ft.Bool, "bool", True),
    "no": (ft.Bool, "bool", False),
    "words": (ft.Array(ft.String), "strings", ["a", "", "ü"]),
    "numbers": (ft.Array(ft.Int64), "ints", [1, -2, 2**40]),
    "ratios": (ft.Array(ft.Float64), "floats", [0.5, -1.0]),
    "flags": (ft.Array(ft.Bool), "bools", [True, False]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(tmp_path_factory.mktemp("redis"), port)
    server.start()
    yield server
    server.stop()


def view(name: str, fields: dict[str, Any], entity: feast.Entity, folder: Path) -> Any:
    source = feast.PushSource(
        name=f"{name}_push",
        batch_source=feast.FileSource(
            name=f"{name}_file", path=str(folder / name), timestamp_field="event_timestamp"
        ),
    )
    schema = [feast.Field(name=n, dtype=t) for n, t in fields.items()]
    return feast.FeatureView(name=name, entities=[entity], schema=schema, source=source)


@pytest.fixture(scope="module")
def store(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> feast.FeatureStore:
    """Two views, written by Feast."""
    folder = tmp_path_factory.mktemp("feast")
    store = feast.FeatureStore(config=store_config(server.url, folder))
    customer = feast.Entity(
        name="customer", join_keys=["entity"], value_type=feast.ValueType.STRING
    )
    all_types = view("all_types", {n: t for n, (t, _, _) in SCALARS.items()}, customer, folder)
    other = view("other", {"tone": ft.String, "score": ft.Int64}, customer, folder)
    store.apply([customer, all_types, other])
    key = entity_key("acme", "1/ü%")
    write(store, "all_types", [{n: v for n, (_, _, v) in SCALARS.items()}], [key], T0)
    write(store, "other", [{"tone": "warm", "score": 5}], [key], T1)
    write(store, "other", [{"tone": None, "score": 5}], [entity_key("acme", "nulls")], T1)
    write(store, "other", [{"tone": "theirs", "score": 1}], [entity_key("beta", "9")], T1)
    return store


def write(
    store: feast.FeatureStore, view: str, rows: list[Any], keys: list[str], at: dt.datetime
) -> None:
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    store.write_to_online_store(
        view, inputs={"entity": keys, "event_timestamp": [at] * len(keys), **columns}
    )


PLAN = ServicePlan(
    ServiceSpec(
        "s",
        (
            ViewSpec("all_types", tuple(FeatureSpec(n, k) for n, (_, k, _) in SCALARS.items())),
            ViewSpec("other", (FeatureSpec("tone"), FeatureSpec("score", "int", -1))),
        ),
    )
)
REFS = [f"all_types:{name}" for name in SCALARS] + ["other:tone", "other:score"]


async def read(server: RedisServer, key: str, plan: ServicePlan = PLAN) -> FeatureRow:
    link = StoreLink(StoreAddress.parse(server.url))
    link.start()
    await link.wait_until_up()
    try:
        return await FeatureReader(link, CacheSettings(0)).begin(plan, hash_key(key), 30.0).row()
    finally:
        await link.close()


def feast_says(store: feast.FeatureStore, key: str) -> dict[str, Any]:
    answer = store.get_online_features(REFS, [{"entity": key}]).to_dict()
    return {name: values[0] for name, values in answer.items() if name != "entity"}


async def test_every_type_is_read_as_feast_reads_it(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    key = entity_key("acme", "1/ü%")
    row = await read(server, key)
    written = {name: value for name, (_, _, value) in SCALARS.items()}
    assert row.values == {**written, "tone": "warm", "score": 5} == feast_says(store, key)
    assert (row.outcome, row.reasons) == ("hit", {})


async def test_the_time_of_the_oldest_view_is_the_rows(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    row = await read(server, entity_key("acme", "1/ü%"))
    assert row.written_s == pytest.approx(T0.timestamp(), abs=1e-6)


async def test_nulls_and_missing_views_are_told_apart(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    key = entity_key("acme", "nulls")
    row = await read(server, key)
    assert row.views == {"all_types": "missing", "other": "fresh"}
    assert row.reasons == {**dict.fromkeys(SCALARS, "missing"), "tone": "null"}
    assert (row.outcome, row.values["score"]) == ("partial", 5)
    says = feast_says(store, key)
    assert (says.pop("score"), set(says.values())) == (5, {None})  # Feast does not tell them apart


async def test_a_missing_entity_is_missing(server: RedisServer, store: feast.FeatureStore) -> None:
    key = entity_key("acme", "nobody")
    assert (await read(server, key)).outcome == "missing"
    assert set(feast_says(store, key).values()) == {None}


async def test_another_tenants_entity_is_missing(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    assert (await read(server, entity_key("beta", "9"))).values["tone"] == "theirs"
    for name in ("9", "beta/9", "../beta/9", "beta%2F9"):
        assert (await read(server, entity_key("acme", name))).outcome == "missing"


async def test_what_feast_overwrites_is_read_anew(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    key = entity_key("acme", "moving")
    for score, at in ((1, T0), (2, T1)):
        write(store, "other", [{"tone": "x", "score": score}], [key], at)
        row = await read(server, key)
        assert (row.values["score"], row.values["score"]) == (
            score,
            feast_says(store, key)["score"],
        )
    write(store, "other", [{"tone": "x", "score": 3}], [key], T0)  # older: Feast keeps the newer
    assert (await read(server, key)).values["score"] == 2


def test_keys_and_fields_are_feasts_own() -> None:
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for text in ("acme/1", "a/ü%2F☂", "t/" + "x" * 300):
        proto = EntityKey(join_keys=["entity"], entity_values=[Value(string_val=text)])
        assert hash_key(text) == _redis_key(PROJECT, proto, 3)
    for name in ("tier", "intent_propensities", "ü", "abcd", "abcde", "abcdef", "abcdefg"):
        assert value_field("view", name) == _mmh3(f"view:{name}")
    assert murmur3_32(b"weir") == int.from_bytes(_mmh3("weir"), "little")


def test_nothing_else_is_in_the_store(server: RedisServer, store: feast.FeatureStore) -> None:
    """Every key that Feast wrote is one that weir can make, and of the right project."""
    keys = redis.Redis.from_url(server.url).keys("*")
    assert keys
    assert all(key.endswith(PROJECT.encode()) and b"entity" in key for key in keys)
