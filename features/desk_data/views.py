"""The feature views, declared once and without Feast: names, fields, time to live."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum

ENTITY = "entity"
"""The join key: ``<tenant>/<entity id>``, see :mod:`features.keys`."""
EVENT_TIMESTAMP = "event_timestamp"
CREATED = "created"
"""When a row became known; breaks ties between rows of one event time."""


class FieldType(Enum):
    """Types of features."""

    STRING = "string"
    INT64 = "int64"
    DOUBLE = "double"


@dataclass(frozen=True, slots=True)
class View:
    """A feature view. Rows older than ``ttl`` at the time of asking are not used for training."""

    name: str
    about: str
    fields: tuple[tuple[str, FieldType], ...]
    ttl: dt.timedelta

    @property
    def field_names(self) -> tuple[str, ...]:
        """The features, in order."""
        return tuple(name for name, _ in self.fields)

    @property
    def push_source(self) -> str:
        """The name of the push source that takes fresh rows of this view."""
        return f"{self.name}_push"


_STRING, _INT, _DOUBLE = FieldType.STRING, FieldType.INT64, FieldType.DOUBLE
LINEAGE = ("model_id", "checkpoint_sha256", "template_sha256", "generated_at")

PLAIN_VIEWS = (
    View(
        "customer_profile",
        "Who the customer is, and the loyalty account",
        (
            ("tier", _STRING),
            ("name", _STRING),
            ("country", _STRING),
            ("loyalty_points", _INT),
            ("customer_since_days", _INT),
        ),
        dt.timedelta(days=90),
    ),
    View(
        "customer_orders",
        "Orders of the last weeks as a JSON list of {id,item,status,placed,arrives,price}, "
        "and what they add up to",
        (
            ("orders", _STRING),
            ("open_orders", _INT),
            ("lifetime_orders", _INT),
            ("total_spent_eur", _DOUBLE),
        ),
        dt.timedelta(days=90),
    ),
    View(
        "customer_contacts",
        "Past contacts with the desk; customers who never called have no row",
        (
            ("contacts_30d", _INT),
            ("last_intent", _STRING),
            ("last_contact_days", _INT),
        ),
        dt.timedelta(days=90),
    ),
)
GENERATED = View(
    "customer_generated",
    "Written by the teacher in batch; an entity without them is long-tail",
    (
        ("summary", _STRING),
        ("tone", _STRING),
        ("intent_propensities", _STRING),
        *((name, _STRING) for name in LINEAGE),
    ),
    dt.timedelta(days=30),
)
VIEWS = (*PLAIN_VIEWS, GENERATED)

SERVICES = {
    "support_desk": tuple(each.name for each in VIEWS),
    "support_desk_light": ("customer_profile", "customer_orders"),
}
"""Feature services, each for a way in which tenants use the features."""


def view(name: str) -> View:
    """The view of that name. Raises KeyError if there is none."""
    return {each.name: each for each in VIEWS}[name]
