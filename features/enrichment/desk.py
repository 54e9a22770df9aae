"""The support desk's customer block, from features: the text that its teacher was trained on."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from weir.desk.render import render_context
from weir.desk.world import Customer, Order

NEEDED = ("name", "tier", "loyalty_points", "orders")


def support_desk(features: Mapping[str, Any], today: dt.date) -> str:
    """The block, or no text if a feature that it states is not known: a block that said "0
    orders" of a customer whose orders could not be read would be worse than none.

    A feature ``today`` (ISO date), where a service has one, stands in for the clock: recorded
    conversations are replayed with it.

    Raises:
        ValueError, LookupError, TypeError: the orders are not the JSON that they should be.
    """
    if any(features.get(name) is None for name in NEEDED):
        return ""
    if replayed := features.get("today"):
        today = dt.date.fromisoformat(replayed)
    orders = tuple(_order(each) for each in json.loads(features["orders"]))
    customer = Customer(
        "", features["name"], features["tier"], features["loyalty_points"], today, orders
    )
    return render_context(customer)


def _order(fields: Mapping[str, Any]) -> Order:
    brand, _, noun = str(fields["item"]).partition(" ")
    return Order(
        order_id=str(fields["id"]),
        brand=brand,
        noun=noun,
        price_eur=int(fields["price"]),
        status=str(fields["status"]),
        ordered=dt.date.fromisoformat(fields["placed"]),
        arrives=dt.date.fromisoformat(fields["arrives"]),
    )
