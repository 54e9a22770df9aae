"""The support desk's customer block, from features: the text that its teacher was trained on."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from weir.customer_block import OrderLine, context_block

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
    return context_block(
        name=features["name"],
        tier=features["tier"],
        points=features["loyalty_points"],
        today=today,
        orders=[_order(each) for each in json.loads(features["orders"])],
    )


def _order(fields: Mapping[str, Any]) -> OrderLine:
    return OrderLine(
        str(fields["id"]),
        str(fields["item"]),
        str(fields["status"]),
        dt.date.fromisoformat(fields["placed"]),
        dt.date.fromisoformat(fields["arrives"]),
        int(fields["price"]),
    )
