"""What is known of an entity: its newest profile and orders, and its past contacts."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.desk_data import DataFolder, view
from features.desk_data.contacts import INTENTS
from features.desk_data.views import ENTITY, EVENT_TIMESTAMP


@dataclass(frozen=True, slots=True)
class History:
    """One entity. ``intents`` counts its contacts of the last 90 days by intent."""

    entity: str
    profile: Mapping[str, Any]
    orders: tuple[Mapping[str, Any], ...]
    intents: Mapping[str, int]
    today: dt.date

    def intent_percent(self) -> dict[str, int]:
        """Shares of the contacts, in percent; zeros without contacts."""
        total = sum(self.intents.values())
        return {
            name: round(100 * self.intents.get(name, 0) / total) if total else 0 for name in INTENTS
        }


class Histories:
    """The histories of some entities, read once from the offline store."""

    def __init__(self, folder: DataFolder, entities: Iterable[str]) -> None:
        wanted = pa.array(list(entities), pa.string())
        self._profiles = _newest(folder, "customer_profile", wanted)
        self._orders = _newest(folder, "customer_orders", wanted)
        self._intents: dict[str, Counter[str]] = defaultdict(Counter)
        contacts = pq.read_table(folder.contacts_file, columns=[ENTITY, "intent"])
        for row in contacts.filter(pc.is_in(contacts[ENTITY], wanted)).to_pylist():
            self._intents[row[ENTITY]][row["intent"]] += 1
        self._today = folder.as_of.date()

    def history(self, entity: str) -> History | None:
        """None if nothing is known of the entity."""
        profile, orders = self._profiles.get(entity), self._orders.get(entity)
        if profile is None or orders is None:
            return None
        return History(
            entity=entity,
            profile=profile,
            orders=tuple(json.loads(orders["orders"])),
            intents=self._intents.get(entity, {}),
            today=self._today,
        )


def _newest(folder: DataFolder, name: str, wanted: pa.Array) -> dict[str, dict[str, Any]]:
    table = pq.read_table(folder.offline(view(name)))
    table = table.filter(pc.is_in(table[ENTITY], wanted)).sort_by(EVENT_TIMESTAMP)
    # Later rows overwrite earlier ones.
    return {row[ENTITY]: row for row in table.to_pylist()}
