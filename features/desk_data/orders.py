"""Orders, as :mod:`weir.samples` has them: a few per customer, placed within the last weeks."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.desk_data.people import Ints, People, WordPool, Words
from weir.samples.words import HELDOUT_NOUNS, STATUSES, TRAIN_NOUNS, split_of

DELIVERED = STATUSES.index("delivered")
_COUNTS = (1, 2, 2, 3, 3, 4)
_WINDOW_DAYS = 25
_STEP = 7
"""Apart from the number of nouns, so that the items of a customer are all different."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders as they stand on one day, one element each, customers in ascending order.

    ``placed`` and ``arrives`` are days relative to that day; ``arrives`` is the delivery if
    delivered, else the due date.
    """

    customers: Ints
    ids: Words
    items: Words
    statuses: Ints
    placed: Ints
    arrives: Ints
    prices: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """Not delivered yet."""
        return np.asarray(self.statuses != DELIVERED, dtype=np.bool_)

    def as_json(self, today: dt.date, customers: int) -> list[str]:
        """For each of ``customers`` the compact JSON list of its orders; ``[]`` without any."""
        days = {n: (today + dt.timedelta(days=n)).isoformat() for n in range(-60, 61)}
        lists: list[list[dict[str, object]]] = [[] for _ in range(customers)]
        columns = (self.ids, self.items, self.statuses, self.placed, self.arrives, self.prices)
        rows = zip(self.customers.tolist(), *(column.tolist() for column in columns), strict=True)
        for customer, key, item, status, placed, arrives, price in rows:
            lists[customer].append(
                {
                    "id": key,
                    "item": item,
                    "status": STATUSES[status],
                    "placed": days[placed],
                    "arrives": days[arrives],
                    "price": price,
                }
            )
        return [json.dumps(each, separators=(",", ":")) for each in lists]


def make_orders(people: People, pool: WordPool, rng: np.random.Generator) -> Orders:
    """The orders of everybody on one day. Ids are unique within a tenant until they run out."""
    counts = rng.choice(_COUNTS, size=len(people))
    customers = np.repeat(np.arange(len(people)), counts)
    total = len(customers)
    places = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    heldout = people.heldout[customers]
    statuses = rng.integers(len(STATUSES), size=total)
    age = rng.integers(1, _WINDOW_DAYS + 1, size=total)
    taken = 1 + np.floor(rng.random(total) * age).astype(np.int64)
    due = rng.integers(1, 21, size=total)
    return Orders(
        customers=customers,
        ids=_order_ids(people.tenants[customers], heldout, rng),
        items=pool.draw(rng, heldout) + " " + _nouns(people, customers, places, rng),
        statuses=statuses,
        placed=-age,
        arrives=np.where(statuses == DELIVERED, taken - age, due),
        prices=rng.integers(5, 200, size=total),
    )


def _nouns(people: People, customers: Ints, places: Ints, rng: np.random.Generator) -> Words:
    """Kinds of products. A quarter of the held-out customers buy what no training text names."""
    start = rng.integers(0, 2**31, size=len(people))[customers] + places * _STEP
    unseen = (people.heldout & (rng.random(len(people)) < 0.25))[customers]
    known = np.array(TRAIN_NOUNS, dtype=object)[start % len(TRAIN_NOUNS)]
    return np.where(
        unseen, np.array(HELDOUT_NOUNS, dtype=object)[start % len(HELDOUT_NOUNS)], known
    )


def _order_ids(tenants: Ints, heldout: npt.NDArray[np.bool_], rng: np.random.Generator) -> Words:
    every = np.arange(10_000, 100_000).astype(str)
    belongs = np.array([split_of(text) == "heldout" for text in every])
    ids = np.empty(len(tenants), dtype=object)
    for tenant in np.unique(tenants):
        for held in (False, True):
            mine = (tenants == tenant) & (heldout == held)
            pool = rng.permutation(every[belongs == held])
            ids[mine] = np.resize(pool, int(mine.sum()))
    return ids
