"""Join keys of other types, names and numbers: what Feast writes under them, weir reads."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import feast
import feast.types as ft
import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.redis_server import RedisServer
from features.enrichment import EntitySource
from features.join_keys import EntityKeys, JoinKey
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
from features.online.on_demand import ComputedFeature, Transformation
from features.repo import store_config
from features.repo.repository import _quiet

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

_FIELDS = {
    "string": "string_val",
    "int32": "int32_val",
    "int64": "int64_val",
    "unix_timestamp": "unix_timestamp_val",
}
_NAMES = st.text(
    st.characters(exclude_characters=";=% \t\n", exclude_categories=["Cs", "Cc", "Z"]),
    min_size=1,
    max_size=20,
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
_PAIRS = st.one_of(
    st.tuples(st.just("string"), _TEXTS),
    st.tuples(st.just("int32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("int64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("unix_timestamp"), st.integers(-(2**63), 2**63 - 1)),
)
PROJECT = "shop_7"
AT = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_NAMES, _PAIRS, min_size=1, max_size=4), st.text("ab_9", min_size=1))
def test_keys_are_feasts_own_byte_for_byte(
    entity: Mapping[str, tuple[Any, Any]], project: str
) -> None:
    proto = EntityKey(
        join_keys=list(entity),
        entity_values=[Value(**{_FIELDS[kind]: value}) for kind, value in entity.values()],
    )
    keys = EntityKeys(tuple(JoinKey(name, kind) for name, (kind, _) in entity.items()), project)
    said = {name: str(value) for name, (_, value) in entity.items()}
    assert keys.hash_key("acme", said) == _redis_key(project, proto, 3)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_NAMES, _TEXTS, min_size=2, max_size=4))
def test_any_values_can_be_said_in_one_text(said: dict[str, str]) -> None:
    keys = EntityKeys(tuple(JoinKey(name) for name in said), PROJECT)
    text = ";".join(
        f"{name}={''.join(f'%{byte:02X}' for byte in value.encode())}"
        for name, value in said.items()
    )
    if len(text) <= 4096:
        assert keys.parse(text) == said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(tmp_path_factory.mktemp("redis"), port)
    server.start()
    yield server
    server.stop()


def transformed(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the on-demand view is made of, in Feast and in weir."""
    score = inputs["score"]
    return {"doubled": None if score is None else score * 2, "tone_length": len(inputs["tone"])}


@pytest.fixture(scope="module")
def store(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> feast.FeatureStore:
    """Two views, one by number, one by number and text; an on-demand view over the second."""
    folder = tmp_path_factory.mktemp("feast")
    config = store_config(server.url, folder).model_copy(update={"project": PROJECT})
    store = feast.FeatureStore(config=config)
    customer = feast.Entity(
        name="customer", join_keys=["customer_id"], value_type=feast.ValueType.INT64
    )
    region = feast.Entity(name="region", join_keys=["region"], value_type=feast.ValueType.STRING)
    shelf = feast.Entity(name="shelf", join_keys=["shelf_no"], value_type=feast.ValueType.INT32)

    def view(name: str, entities: list[feast.Entity]) -> feast.FeatureView:
        source = feast.PushSource(
            name=f"{name}_push",
            batch_source=feast.FileSource(
                name=f"{name}_file", path=str(folder / name), timestamp_field="event_timestamp"
            ),
        )
        schema = [
            feast.Field(name="tone", dtype=ft.String),
            feast.Field(name="score", dtype=ft.Int64),
        ]
        return feast.FeatureView(name=name, entities=entities, schema=schema, source=source)

    by_two = view("by_two", [customer, region])
    computed = on_demand_feature_view(
        sources=[by_two],
        schema=[
            feast.Field(name="doubled", dtype=ft.Int64),
            feast.Field(name="tone_length", dtype=ft.Int64),
        ],
        mode="python",
        singleton=True,
    )(transformed)
    with _quiet():
        store.apply(
            [
                *(customer, region, shelf),
                *(view("by_number", [customer]), view("by_shelf", [shelf]), by_two, computed),
            ]
        )
    write(store, "by_number", {"customer_id": [42, -7], "tone": ["a", "b"], "score": [1, 2]})
    write(store, "by_shelf", {"shelf_no": [3], "tone": ["c"], "score": [3]})
    write(
        store,
        "by_two",
        {"customer_id": [42, 42], "region": ["eu", "é;=%"], "tone": ["eu", "odd"], "score": [5, 6]},
    )
    return store


def write(store: feast.FeatureStore, view: str, columns: dict[str, list[Any]]) -> None:
    count = len(columns["tone"])
    with _quiet():
        store.write_to_online_store(view, inputs={**columns, "event_timestamp": [AT] * count})


def plan(view: str, *on_demand: Transformation) -> ServicePlan:
    features = (FeatureSpec("tone"), FeatureSpec("score", "int"))
    return ServicePlan(ServiceSpec("s", (ViewSpec(view, features),), None, on_demand))


async def read(server: RedisServer, plan: ServicePlan, keys: EntityKeys, said: str) -> FeatureRow:
    found = EntitySource.parse("header: x", keys).find("acme", lambda name: said, None, 0.0)
    assert found.key is not None, found.reason
    link = StoreLink(StoreAddress.parse(server.url))
    link.start()
    await link.wait_until_up()
    try:
        return await FeatureReader(link, CacheSettings(0)).begin(plan, found.key, 30.0).row()
    finally:
        await link.close()


NUMBER = EntityKeys((JoinKey("customer_id", "int64"),), PROJECT)
SHELF = EntityKeys((JoinKey("shelf_no", "int32"),), PROJECT)
TWO = EntityKeys((JoinKey("region"), JoinKey("customer_id", "int64")), PROJECT)


@pytest.mark.parametrize(
    ("view", "keys", "said", "tone"),
    [
        ("by_number", NUMBER, "42", "a"),
        ("by_number", NUMBER, "-7", "b"),
        ("by_number", NUMBER, "43", None),
        ("by_number", EntityKeys((JoinKey("customer_id"),), PROJECT), "42", None),
        ("by_number", EntityKeys((JoinKey("customer_id", "int64"),)), "42", None),
        ("by_shelf", SHELF, "3", "c"),
        ("by_two", TWO, "customer_id=42;region=eu", "eu"),
        ("by_two", TWO, "region=eu; customer_id=42", "eu"),
        ("by_two", TWO, "customer_id=42;region=%C3%A9%3B%3D%25", "odd"),
        ("by_two", TWO, "customer_id=7;region=eu", None),
    ],
)
async def test_what_feast_wrote_is_read(
    server: RedisServer,
    store: feast.FeatureStore,
    view: str,
    keys: EntityKeys,
    said: str,
    tone: str | None,
) -> None:
    row = await read(server, plan(view), keys, said)
    assert row.outcome == ("missing" if tone is None else "hit")
    assert row.values["tone"] == tone


async def test_an_on_demand_view_computes_what_feasts_does(
    server: RedisServer, store: feast.FeatureStore
) -> None:
    made = (ComputedFeature("doubled", "int"), ComputedFeature("tone_length", "int"))
    row = await read(
        server, plan("by_two", Transformation(transformed, made)), TWO, "customer_id=42;region=eu"
    )
    with _quiet():
        says = store.get_online_features(
            ["transformed:doubled", "transformed:tone_length"],
            [{"customer_id": 42, "region": "eu"}],
        ).to_dict()
    assert row.outcome == "hit"
    for name in ("doubled", "tone_length"):
        assert says[name] == [row.values[name]]
    assert (row.values["doubled"], row.values["tone_length"]) == (10, 2)
