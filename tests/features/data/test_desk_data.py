"""The data set: reproducible, plausible, and in the desk's own words."""

from __future__ import annotations

import collections
import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.desk_data import (
    GENERATED,
    DataFolder,
    DeskDataSpec,
    TenantShare,
    view,
    write_desk_data,
)
from features.keys import entity_key
from weir.errors import ConfigError
from weir.samples.words import STATUSES, TIERS, split_of

SPEC = DeskDataSpec(dt.date(2026, 1, 31), customers=2_000)
SHA256 = "fe5f745ddde159abcdcd88782a0f880d86331eb2cbb3e16b7cac98fde935569e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    held = DataFolder(tmp_path_factory.mktemp("data"))
    write_desk_data(SPEC, held)
    return held


def rows(folder: DataFolder, name: str) -> pa.Table:
    return pq.read_table(folder.offline(view(name)))


def test_the_same_spec_gives_the_same_content(folder: DataFolder, tmp_path: Path) -> None:
    again = write_desk_data(SPEC, DataFolder(tmp_path))
    assert again == folder.manifest()
    assert again["sha256"] == SHA256, "the data set changed: say so in the changelog"
    other = write_desk_data(
        DeskDataSpec(SPEC.as_of, seed=8, customers=2_000), DataFolder(tmp_path / "other")
    )
    assert other["sha256"] != again["sha256"]


def test_tenants_get_their_shares_and_keys_are_theirs(folder: DataFolder) -> None:
    people = pq.read_table(folder.entities_file).to_pylist()
    counts = collections.Counter(each["tenant_id"] for each in people)
    assert sum(counts.values()) == 2_000
    assert [counts[tenant.tenant_id] / 2_000 for tenant in SPEC.tenants] == pytest.approx(
        [tenant.share for tenant in SPEC.tenants], abs=0.01
    )
    assert len({each["entity"] for each in people}) == 2_000
    assert all(
        each["entity"] == entity_key(each["tenant_id"], each["entity_id"]) for each in people
    )


def test_each_tenant_has_a_store_of_its_own(folder: DataFolder) -> None:
    stores = folder.manifest()["stores"]
    assert list(stores) == [tenant.tenant_id for tenant in SPEC.tenants]
    assert len({store["name"] for store in stores.values()}) == 4
    assert all(store["name"] in store["system"] for store in stores.values())


def test_popularity_follows_zipfs_law(folder: DataFolder) -> None:
    people = pq.read_table(folder.entities_file).to_pylist()
    share = {each["popularity_rank"]: each["traffic_share"] for each in people}
    assert sum(share.values()) == pytest.approx(1)
    assert sorted(share) == list(range(1, 2_001))
    assert share[1] / share[10] == pytest.approx(10)
    contacts = collections.Counter(pq.read_table(folder.contacts_file)["entity"].to_pylist())
    called = [contacts[each["entity"]] for each in people if each["popularity_rank"] <= 20]
    rest = [contacts[each["entity"]] for each in people if each["popularity_rank"] > 1_000]
    assert min(called) > 3 * sum(rest) / len(rest)


def test_orders_are_what_the_desk_can_render(folder: DataFolder) -> None:
    table = rows(folder, "customer_orders").to_pylist()
    for row in table:
        orders = json.loads(row["orders"])
        today = row["event_timestamp"].date()
        assert 1 <= len(orders) <= 4
        assert len({order["id"] for order in orders}) == len(orders)
        assert len({order["item"].partition(" ")[2] for order in orders}) == len(orders)
        assert row["open_orders"] == sum(order["status"] != "delivered" for order in orders)
        for order in orders:
            assert order["status"] in STATUSES
            arrives = dt.date.fromisoformat(order["arrives"])
            assert dt.date.fromisoformat(order["placed"]) < today
            assert arrives <= today if order["status"] == "delivered" else arrives > today


def test_features_grow_over_time(folder: DataFolder) -> None:
    by_entity = collections.defaultdict(list)
    for row in rows(folder, "customer_profile").to_pylist():
        by_entity[row["entity"]].append(row)
    for earlier, later in (
        sorted(e, key=lambda r: r["event_timestamp"]) for e in by_entity.values()
    ):
        assert earlier["loyalty_points"] <= later["loyalty_points"]
        assert TIERS.index(earlier["tier"]) <= TIERS.index(later["tier"])
        assert later["customer_since_days"] - earlier["customer_since_days"] == 60
        assert earlier["created"] > earlier["event_timestamp"]


def test_contact_features_count_what_was_known_then(folder: DataFolder) -> None:
    raw = collections.defaultdict(list)
    for contact in pq.read_table(folder.contacts_file).to_pylist():
        raw[contact["entity"]].append((contact["at"], contact["intent"]))
    for row in rows(folder, "customer_contacts").to_pylist():
        now = row["event_timestamp"]
        past = sorted(each for each in raw[row["entity"]] if each[0] <= now)
        recent = [at for at, _ in past if now - at < dt.timedelta(days=30)]
        assert row["contacts_30d"] == len(recent)
        assert row["last_intent"] in {intent for at, intent in past if at == past[-1][0]}
        assert row["last_contact_days"] == (now - past[-1][0]).days


def test_heldout_customers_are_made_of_heldout_words(folder: DataFolder) -> None:
    split = {row["entity"]: row["split"] for row in pq.read_table(folder.entities_file).to_pylist()}
    assert 0.15 < list(split.values()).count("heldout") / 2_000 < 0.25
    for row in rows(folder, "customer_profile").to_pylist():
        assert {split_of(word) for word in row["name"].split()} == {split[row["entity"]]}
    for row in rows(folder, "customer_orders").to_pylist():
        for order in json.loads(row["orders"]):
            assert split_of(order["id"]) == split[row["entity"]]
            assert split_of(order["item"].partition(" ")[0]) == split[row["entity"]]


def test_nothing_is_generated_yet_but_the_columns_are_there(folder: DataFolder) -> None:
    table = rows(folder, GENERATED.name)
    assert table.num_rows == 0
    assert set(GENERATED.field_names) < set(table.column_names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"customers": 0}, "customers"),
        ({"tenants": (TenantShare("a", 1), TenantShare("a", 1))}, "twice"),
        ({"tenants": (TenantShare("a", 0),)}, "share"),
        ({"zipf_exponent": -1}, "exponent"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeskDataSpec(dt.date(2026, 1, 31), **changes)  # type: ignore[arg-type]


def test_a_folder_without_data_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weir features apply"):
        DataFolder(tmp_path).manifest()
