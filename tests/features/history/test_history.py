"""Training data without leakage, against rows planted by hand."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from features.desk_data import GENERATED, VIEWS, DataFolder, view
from features.desk_data.tables import empty_table, schema
from features.desk_data.writing import write_table
from features.history import (
    HistoryError,
    read_entities,
    training_set,
    write_training_set,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from features.repo import FeatureRepository

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
POINTS = "customer_profile__loyalty_points"
HOUR = dt.timedelta(hours=1)
TTL = view("customer_profile").ttl

Rows = list[tuple[str, dt.datetime, dt.datetime, int]]
Plant = Callable[[Rows], FeatureRepository]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """A repository whose profiles are the given rows: (entity, event, created, points)."""
    data = DataFolder(tmp_path_factory.mktemp("history"))
    for each in VIEWS:
        write_table(empty_table(each), data.offline(each) / "rows.parquet")
    repository = FeatureRepository(f"sqlite://{data.root}/online.db", data)
    repository.apply()

    def planted(rows: Rows) -> FeatureRepository:
        profile = view("customer_profile")
        made = [
            {
                "entity": entity,
                "event_timestamp": event,
                "created": created,
                "tier": "gold",
                "name": "A B",
                "country": "DE",
                "loyalty_points": points,
                "customer_since_days": 1,
            }
            for entity, event, created, points in rows
        ]
        table = pa.Table.from_pylist(made, schema=schema(profile))
        write_table(table, data.offline(profile) / "rows.parquet")
        return repository

    return planted


def ask(repository: FeatureRepository, *asked: tuple[str, dt.datetime], **more: Any) -> list[Any]:
    frame = pd.DataFrame(
        {"entity": [e for e, _ in asked], "event_timestamp": [at for _, at in asked]}
    )
    joined = training_set(repository, frame, "support_desk_light", **more)
    assert len(joined) == len(asked)
    return [None if pd.isna(value) else int(value) for value in joined[POINTS]]


def naive(rows: Rows, entity: str) -> int:
    """What a join by key alone takes: the newest row there is."""
    return max((row for row in rows if row[0] == entity), key=lambda row: row[1])[3]


def test_a_value_of_the_future_is_not_used(plant: Plant) -> None:
    rows = [("a/1", NOON - HOUR, NOON - HOUR, 1), ("a/1", NOON + HOUR, NOON + HOUR, 999)]
    assert naive(rows, "a/1") == 999, "the naive join leaks, or this test would catch nothing"
    assert ask(plant(rows), ("a/1", NOON)) == [1]


def test_a_value_of_that_very_moment_is_used(plant: Plant) -> None:
    rows = [
        ("a/1", NOON - HOUR, NOON - HOUR, 1),
        ("a/1", NOON, NOON, 2),
        ("a/1", NOON + dt.timedelta(microseconds=1), NOON, 3),
    ]
    before = NOON - dt.timedelta(microseconds=1)
    assert ask(plant(rows), ("a/1", NOON), ("a/1", before)) == [2, 1]


def test_a_value_that_arrived_late_was_not_known(plant: Plant) -> None:
    rows = [("a/1", NOON - 2 * HOUR, NOON - HOUR, 1), ("a/1", NOON - HOUR, NOON + HOUR, 2)]
    repository = plant(rows)
    assert ask(repository, ("a/1", NOON)) == [1]
    assert ask(repository, ("a/1", NOON), only_known=False) == [2]


def test_what_is_older_than_its_time_to_live_is_null_and_the_row_stays(plant: Plant) -> None:
    born = NOON - TTL
    repository = plant([("a/1", born, born, 1)])
    second = dt.timedelta(seconds=1)
    assert ask(repository, ("a/1", NOON), ("a/1", NOON + second)) == [1, None]


def test_rows_about_which_nothing_was_known_yet_are_kept(plant: Plant) -> None:
    repository = plant([("a/1", NOON + HOUR, NOON + HOUR, 1)])
    assert ask(repository, ("a/1", NOON), ("a/2", NOON)) == [None, None]


def test_feast_alone_would_lose_such_rows(plant: Plant) -> None:
    """If this fails, Feast was mended, and the joining view by view can go."""
    repository = plant([("a/1", NOON + HOUR, NOON + HOUR, 1), ("a/2", NOON, NOON, 2)])
    frame = pd.DataFrame({"entity": ["a/1", "a/2"], "event_timestamp": [NOON, NOON]})
    joined = repository.join(frame, ["customer_profile:loyalty_points"], only_known=True)
    assert joined["entity"].tolist() == ["a/2"]


def test_of_two_rows_of_one_event_time_the_one_created_last_counts(plant: Plant) -> None:
    late, later = NOON + HOUR, NOON + 2 * HOUR
    for rows in (
        [("a/1", NOON, late, 1), ("a/1", NOON, later, 2)],
        [("a/1", NOON, later, 2), ("a/1", NOON, late, 1)],
    ):
        assert ask(plant(rows), ("a/1", later)) == [2]


def test_rows_asked_for_twice_come_twice_in_their_order_with_their_labels(plant: Plant) -> None:
    repository = plant([("a/1", NOON, NOON, 1), ("a/2", NOON, NOON, 2)])
    frame = pd.DataFrame(
        {
            "entity": ["a/2", "a/1", "a/2"],
            "event_timestamp": [NOON + HOUR] * 3,
            "label": ["x", "y", "z"],
        }
    )
    joined = training_set(repository, frame, "support_desk_light")
    assert joined[POINTS].tolist() == [2, 1, 2]
    assert joined["label"].tolist() == ["x", "y", "z"]


_MOMENTS = st.integers(0, 6).map(lambda n: NOON + n * HOUR)
_ROW = st.tuples(
    st.sampled_from(("a/1", "a/2")), _MOMENTS, st.integers(0, 3), st.integers(0, 10**6)
)


@budget(max_examples=8)
@given(
    rows=st.lists(_ROW, max_size=8, unique_by=lambda row: (row[0], row[1], row[2])),
    asked=st.lists(st.tuples(st.sampled_from(("a/1", "a/2", "a/3")), _MOMENTS), min_size=1),
)
def test_the_join_is_the_definition(
    plant: Plant, rows: list[tuple[str, dt.datetime, int, int]], asked: list[Any]
) -> None:
    """Newest event not after the moment, created by then; of equal ones the last created."""
    planted = [(e, at, at + late * HOUR, points) for e, at, late, points in rows]
    expected = []
    for entity, moment in asked:
        known = [r for r in planted if r[0] == entity and r[1] <= moment and r[2] <= moment]
        expected.append(max(known, key=lambda row: (row[1], row[2]))[3] if known else None)
    assert ask(plant(planted), *asked) == expected


def test_all_views_join_even_those_without_rows(plant: Plant) -> None:
    repository = plant([("a/1", NOON, NOON, 5)])
    frame = pd.DataFrame({"entity": ["a/1"], "event_timestamp": [NOON + HOUR]})
    joined = training_set(repository, frame)
    assert joined[POINTS].tolist() == [5]
    assert joined[f"{GENERATED.name}__summary"].isna().all()


def test_entity_files_of_all_kinds_are_read(tmp_path: Path) -> None:
    csv, jsonl, parquet = (tmp_path / f"e.{kind}" for kind in ("csv", "jsonl", "parquet"))
    csv.write_text("tenant_id,entity_id,event_timestamp,label\na,001,2026-03-01T12:00:00Z,yes\n")
    jsonl.write_text('{"entity": "a/001", "event_timestamp": "2026-03-01T13:00:00+01:00"}\n')
    read_entities(csv).to_parquet(parquet)
    for file in (csv, jsonl, parquet):
        frame = read_entities(file)
        assert frame["entity"].tolist() == ["a/001"]
        assert frame["event_timestamp"].tolist() == [NOON]
    assert read_entities(csv)["label"].tolist() == ["yes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entity\na/1\n", "no column event_timestamp"),
        ("event_timestamp\n2026-03-01T12:00:00Z\n", "no column entity"),
        ("entity,event_timestamp\na/1,2026-03-01T12:00:00\n", "row 1: .*no time zone"),
        ("entity,event_timestamp\na/1,yesterday-ish\n", "event_timestamp"),
        ("tenant_id,entity_id,event_timestamp\n,,2026-03-01T12:00:00Z\n", "entity"),
    ],
)
def test_bad_entity_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "e.csv"
    file.write_text(text)
    with pytest.raises(HistoryError, match=message):
        read_entities(file)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="expected one of"):
        read_entities(tmp_path / "e.xlsx")
    with pytest.raises(HistoryError, match="expected"):
        write_training_set(pd.DataFrame(), tmp_path / "out.xlsx")
