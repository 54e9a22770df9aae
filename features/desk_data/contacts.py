"""Past contacts with the desk: who asked what, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.desk_data.people import Ints, People
from features.desk_data.spec import DeskDataSpec

INTENTS = (
    "order_status",
    "order_eta",
    "order_price",
    "return_window",
    "shipping",
    "loyalty",
    "warranty",
    "contact",
)
CHANNELS = ("chat", "mail", "phone")
HISTORY_DAYS = 90
DAY_S = 86_400
MAX_CONTACTS = 40
"""Of one customer: without a limit the first of Zipf's law would call every minute."""
_INTENT_SHARES = (0.28, 0.22, 0.08, 0.14, 0.09, 0.09, 0.05, 0.05)
_FAVOURITE_SHARE = 0.6
"""Customers ask the same thing again: part of a customer's contacts that are about one intent."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """One element per contact, by customer and then by time (Unix seconds)."""

    customers: Ints
    at_s: Ints
    intents: Ints
    channels: Ints

    def __len__(self) -> int:
        return len(self.customers)

    def within_30d(self) -> Ints:
        """For each contact, how many the customer had in the 30 days up to it, itself included."""
        line = _line(self.customers, self.at_s)
        first = np.searchsorted(line, _line(self.customers, self.at_s - 30 * DAY_S), side="right")
        return np.arange(len(self)) - first + 1

    def count_since(self, customers: Ints, at_s: int, days: int) -> Ints:
        """For each of ``customers``, its contacts in the ``days`` before ``at_s``."""
        line = _line(self.customers, self.at_s)
        low = np.searchsorted(line, _line(customers, at_s - days * DAY_S), side="right")
        high = np.searchsorted(line, _line(customers, at_s), side="right")
        return high - low


def _line(customers: Ints, at_s: Ints | int) -> Ints:
    """Customers and times on one ascending line: 2**34 s of room for each customer."""
    return np.asarray(customers * (1 << 34) + at_s, dtype=np.int64)


def make_contacts(spec: DeskDataSpec, people: People) -> Contacts:
    """The contacts of the last 90 days: popular customers call more often."""
    rng = np.random.default_rng((spec.seed, 4))
    total = int(spec.contacts_per_customer * len(people))
    customers = np.sort(rng.choice(len(people), size=total, p=people.weights))
    counts = np.bincount(customers, minlength=len(people))
    place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    customers = customers[place < MAX_CONTACTS]
    total = len(customers)
    end = int(spec.as_of_utc.timestamp())
    at_s = end - 1 - rng.integers(0, HISTORY_DAYS * DAY_S, size=total)
    order = np.lexsort((at_s, customers))
    favourite = rng.choice(len(INTENTS), size=len(people), p=_INTENT_SHARES)[customers]
    other = rng.choice(len(INTENTS), size=total, p=_INTENT_SHARES)
    return Contacts(
        customers=customers,
        at_s=at_s[order],
        intents=np.where(rng.random(total) < _FAVOURITE_SHARE, favourite, other),
        channels=rng.choice(len(CHANNELS), size=total, p=(0.6, 0.25, 0.15)),
    )
