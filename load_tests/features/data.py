"""Customers of the support desk, written into a real Redis by Feast itself."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.redis_server import RedisServer
from features.keys import entity_key
from features.online import ServicePlan
from load_tests.servers import free_port
from weir.samples.world import Customer, make_customer

TENANT = "bench"
FEATURES = {
    "customer_profile": ("tier", "name", "country", "loyalty_points", "customer_since_days"),
    "customer_orders": ("orders", "open_orders", "lifetime_orders", "total_spent_eur"),
    "customer_contacts": ("contacts_30d",),
}
"""The ten features of the latency rows, from three views."""
REFS = [f"{view}:{name}" for view, names in FEATURES.items() for name in names]
SERVICE = {
    "views": {
        "customer_profile": {
            "freshness_s": 7776000,
            "features": {
                "tier": {},
                "name": {},
                "country": {},
                "loyalty_points": {"type": "int"},
                "customer_since_days": {"type": "int"},
            },
        },
        "customer_orders": {
            "freshness_s": 7776000,
            "features": {
                "orders": {},
                "open_orders": {"type": "int"},
                "lifetime_orders": {"type": "int"},
                "total_spent_eur": {"type": "float"},
            },
        },
        "customer_contacts": {"features": {"contacts_30d": {"type": "int", "default": 0}}},
    }
}
"""``features.services`` for them."""
RULE = {"service": "bench", "entity": "header: x-weir-entity", "template": "support_desk"}


def features_section(redis_url: str, **rule: Any) -> dict[str, Any]:
    """The settings' section ``features`` for these ten features, without a cache."""
    return {
        "enabled": True,
        "redis_url": redis_url,
        "cache": {"entries": 0},
        "services": {"bench": SERVICE},
        "enrich": [{**RULE, **rule}],
    }


def plan() -> ServicePlan:
    """The same as the read path has it."""
    from features.enrichment import compile_rules
    from weir.settings import load_settings

    overlay = {"features": features_section("redis://127.0.0.1")}
    rule = compile_rules(load_settings("stub", overlay=overlay).features, {}).find("stub", TENANT)
    assert rule is not None
    return rule.plan


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """The embedded Redis, as the platform runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, free_port(), folder / "redis.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def customers(count: int) -> list[Customer]:
    """Held-out ones: no model has seen their names, brands or orders."""
    return [make_customer("features", index, "heldout") for index in range(count)]


def rows(people: Iterable[Customer], tenant: str = TENANT) -> dict[str, list[dict[str, Any]]]:
    """Rows by view, as Feast writes them."""
    found: dict[str, list[dict[str, Any]]] = {view: [] for view in FEATURES}
    for customer in people:
        key = {"entity": entity_key(tenant, customer.customer_id)}
        found["customer_profile"].append(
            {
                **key,
                "tier": customer.tier,
                "name": customer.name,
                "country": "AT",
                "loyalty_points": customer.points,
                "customer_since_days": 400,
            }
        )
        prices = [order.price_eur for order in customer.orders]
        found["customer_orders"].append(
            {
                **key,
                "orders": orders_json(customer),
                "open_orders": sum(not order.delivered for order in customer.orders),
                "lifetime_orders": len(prices),
                "total_spent_eur": float(sum(prices)),
            }
        )
        found["customer_contacts"].append(
            {**key, "contacts_30d": 2, "last_intent": "order_status", "last_contact_days": 3}
        )
    return found


def orders_json(customer: Customer) -> str:
    """The orders as the feature holds them."""
    return json.dumps(
        [
            {
                "id": order.order_id,
                "item": order.item,
                "status": order.status,
                "placed": order.ordered.isoformat(),
                "arrives": order.arrives.isoformat(),
                "price": order.price_eur,
            }
            for order in customer.orders
        ],
        separators=(",", ":"),
    )


class FeastWriter:
    """Feast's own client, and the definitions that it needs. Importing it costs seconds."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        from features.desk_data import DataFolder
        from features.repo import FeatureRepository

        self._repository = FeatureRepository(redis_url, DataFolder(folder))
        self._repository.apply()
        self.store = self._repository.store

    def write(self, view: str, rows: Sequence[dict[str, Any]], at: dt.datetime) -> None:
        """Rows with features and ``entity``, all with event time ``at``."""
        import pandas as pd

        frame = pd.DataFrame(list(rows)).assign(event_timestamp=at, created=at)
        self.store.write_to_online_store(view, df=frame)

    def write_customers(
        self, people: Sequence[Customer], at: dt.datetime, tenant: str = TENANT
    ) -> None:
        """The three plain views."""
        for view, found in rows(people, tenant).items():
            self.write(view, found, at)

    def add_replay_clock(self, days: Sequence[dict[str, Any]], at: dt.datetime) -> None:
        """A view with the day of each customer's conversation (see ``support_desk``)."""
        import feast
        import feast.types as types

        entity = self.store.get_entity("customer")
        batch = feast.FileSource(
            name="replay_file",
            path="replay",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        view = feast.FeatureView(
            name="replay",
            entities=[entity],
            schema=[feast.Field(name="today", dtype=types.String)],
            source=feast.PushSource(name="replay_push", batch_source=batch),
        )
        self.store.apply([view])
        self.write("replay", days, at)
