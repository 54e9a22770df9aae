"""From customers, orders and contacts to the tables of the offline store.

Features change: each view has rows of several times, so that a training set can ask what was
known then. ``created`` is a few minutes after ``event_timestamp``, as in a real pipeline.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.desk_data.contacts import DAY_S, INTENTS, Contacts
from features.desk_data.orders import Orders
from features.desk_data.people import Ints, People
from features.desk_data.spec import DeskDataSpec
from features.desk_data.views import CREATED, ENTITY, EVENT_TIMESTAMP, VIEWS, FieldType, View
from weir.samples.words import TIERS

EARLIER_DAYS = 60
"""Profiles and orders are known on two days: that long ago, and on the day of the data set."""
_CREATED_AFTER_S = 300
_TYPES = {
    FieldType.STRING: pa.string(),
    FieldType.INT64: pa.int64(),
    FieldType.DOUBLE: pa.float64(),
}


def schema(view: View) -> pa.Schema:
    """The columns of a view's parquet files: join key, event time, created, features."""
    moment = pa.timestamp("us", tz="UTC")
    fixed = [(ENTITY, pa.string()), (EVENT_TIMESTAMP, moment), (CREATED, moment)]
    return pa.schema([*fixed, *((name, _TYPES[kind]) for name, kind in view.fields)])


def profile_columns(spec: DeskDataSpec, people: People) -> dict[str, object]:
    """Tier and points have risen since the earlier day."""
    rng = np.random.default_rng((spec.seed, 2))
    earlier_tiers = np.maximum(people.tiers - (rng.random(len(people)) < 0.2), 0)
    earlier_points = np.floor(people.points * rng.uniform(0.3, 1.0, len(people))).astype(np.int64)
    tiers = np.array(TIERS, dtype=object)
    return {
        **_twice(spec, people),
        "tier": np.concatenate((tiers[earlier_tiers], tiers[people.tiers])),
        "name": np.tile(people.names, 2),
        "country": np.tile(people.countries, 2),
        "loyalty_points": np.concatenate((earlier_points, people.points)),
        "customer_since_days": np.concatenate(
            (people.since_days - EARLIER_DAYS, people.since_days)
        ),
    }


def order_columns(
    spec: DeskDataSpec, people: People, earlier: Orders, current: Orders
) -> dict[str, object]:
    """Orders on the earlier day, and on the day of the data set (those of then have arrived)."""
    rng = np.random.default_rng((spec.seed, 3))
    count = len(people)
    before = rng.poisson(people.since_days / 200)
    spent_before = before * rng.uniform(20, 150, count)
    lifetime, spent, rows, open_orders = before, spent_before, [], []
    columns: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
    for orders, days in ((earlier, EARLIER_DAYS), (current, 0)):
        lifetime = lifetime + np.bincount(orders.customers, minlength=count)
        spent = spent + np.bincount(orders.customers, weights=orders.prices, minlength=count)
        columns.append((lifetime, spent))
        rows += orders.as_json(spec.as_of - dt.timedelta(days=days), count)
        open_orders.append(np.bincount(orders.customers[orders.open], minlength=count))
    return {
        **_twice(spec, people),
        "orders": rows,
        "open_orders": np.concatenate(open_orders),
        "lifetime_orders": np.concatenate([each for each, _ in columns]),
        "total_spent_eur": np.round(np.concatenate([each for _, each in columns]), 2),
    }


def contact_columns(spec: DeskDataSpec, people: People, contacts: Contacts) -> dict[str, object]:
    """A row at each contact, and one on the day of the data set for everybody who ever called."""
    end_s = int(spec.as_of_utc.timestamp())
    last = np.flatnonzero(np.append(contacts.customers[1:] != contacts.customers[:-1], True))
    callers = contacts.customers[last]
    intents = np.array(INTENTS, dtype=object)
    at_s = np.concatenate((contacts.at_s, np.full(len(last), end_s)))
    return {
        ENTITY: people.keys[np.concatenate((contacts.customers, callers))],
        **_times(at_s),
        "contacts_30d": np.concatenate(
            (contacts.within_30d(), contacts.count_since(callers, end_s, 30))
        ),
        "last_intent": intents[np.concatenate((contacts.intents, contacts.intents[last]))],
        "last_contact_days": np.concatenate(
            (np.zeros(len(contacts), dtype=np.int64), (end_s - contacts.at_s[last]) // DAY_S)
        ),
    }


def view_table(view: View, columns: dict[str, object]) -> pa.Table:
    """The columns in the schema of ``view``."""
    return pa.table(columns).select(schema(view).names).cast(schema(view))


def empty_table(view: View) -> pa.Table:
    """No rows; Feast reads a source that has never been written only if it has its columns."""
    return schema(view).empty_table()


def view_names() -> tuple[str, ...]:
    """All views."""
    return tuple(each.name for each in VIEWS)


def _twice(spec: DeskDataSpec, people: People) -> dict[str, object]:
    end_s = int(spec.as_of_utc.timestamp())
    at_s = np.repeat((end_s - EARLIER_DAYS * DAY_S, end_s), len(people))
    return {ENTITY: np.tile(people.keys, 2), **_times(at_s)}


def _times(at_s: Ints) -> dict[str, object]:
    moment = pa.timestamp("us", tz="UTC")
    return {
        name: pa.array((at_s + late_s) * 1_000_000, pa.int64()).cast(moment)
        for name, late_s in ((EVENT_TIMESTAMP, 0), (CREATED, _CREATED_AFTER_S))
    }
