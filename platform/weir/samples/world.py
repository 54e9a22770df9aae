"""The desk's world: stores, customers and their orders, each a function of a seed and an index."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from decimal import Decimal

from weir.samples.words import (
    STATUSES,
    STORE_KINDS,
    TIERS,
    WEEKDAYS,
    Split,
    noun,
    order_id,
    word,
)


@dataclass(frozen=True, slots=True)
class Store:
    """A store and its policies. Money in EUR, windows in days, warranty in months."""

    store_id: str
    name: str
    opens: str
    closes: str
    last_weekday: str
    phone: str
    email: str
    return_days: int
    extra_return_days: tuple[int, int, int]
    """Extra days for silver, gold and platinum members; bronze gets none."""
    shipping_fee_eur: Decimal
    free_shipping_from_eur: int
    warranty_months: int

    def extra_days(self, tier: str) -> int:
        """Days that `tier` adds to the return window. Raises ValueError on an unknown tier."""
        return (0, *self.extra_return_days)[TIERS.index(tier)]


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `arrives` is the delivery date if delivered, else the due date."""

    order_id: str
    brand: str
    noun: str
    price_eur: int
    status: str
    ordered: dt.date
    arrives: dt.date

    @property
    def item(self) -> str:
        """Brand and noun, as the answers name it."""
        return f"{self.brand} {self.noun}"

    @property
    def delivered(self) -> bool:
        """True once the order has arrived."""
        return self.status == "delivered"


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the online features know them, on the day `today`."""

    customer_id: str
    name: str
    tier: str
    points: int
    today: dt.date
    orders: tuple[Order, ...]


def make_store(seed: int | str, index: int, split: Split = "train") -> Store:
    """Store number `index` of the world `seed`; the same arguments give the same store."""
    rng = random.Random(f"store/{seed}/{split}/{index}")
    name = word(rng, split)
    silver, gold, platinum = sorted(rng.sample(range(10, 60, 10), 3))
    return Store(
        store_id=f"s{index:04d}",
        name=f"{name} {rng.choice(STORE_KINDS)}",
        opens=f"{rng.randint(6, 11):02d}:{rng.choice((0, 15, 30, 45)):02d}",
        closes=f"{rng.randint(15, 22):02d}:{rng.choice((0, 15, 30, 45)):02d}",
        last_weekday=rng.choice(WEEKDAYS[1:]),
        phone="-".join(
            (rng.choice(("0800", "0820", "0850")), *(f"{rng.randrange(1000):03d}" for _ in "ab"))
        ),
        email=f"{rng.choice(('help', 'care', 'desk'))}@{name.lower()}.example",
        return_days=rng.randint(10, 49),
        extra_return_days=(silver, gold, platinum),
        shipping_fee_eur=Decimal(rng.randrange(200, 1000, 5)) / 100,
        free_shipping_from_eur=rng.randrange(20, 160, 10),
        warranty_months=rng.randint(6, 60),
    )


def _make_order(rng: random.Random, split: Split, today: dt.date, kind: str) -> Order:
    status = rng.choice(STATUSES)
    ordered = today - dt.timedelta(days=rng.randint(1, 25))
    if status == "delivered":
        arrives = ordered + dt.timedelta(days=rng.randint(1, max(1, (today - ordered).days)))
    else:
        arrives = today + dt.timedelta(days=rng.randint(1, 20))
    return Order(
        order_id=order_id(rng, split),
        brand=word(rng, split),
        noun=kind,
        price_eur=rng.randint(5, 199),
        status=status,
        ordered=ordered,
        arrives=arrives,
    )


def make_customer(
    seed: int | str, index: int, split: Split = "train", n_orders: int | None = None
) -> Customer:
    """Customer number `index` of the world `seed`.

    Args:
        n_orders: how many orders (their ids and nouns are distinct); drawn from 1 to 4 if None.
    """
    rng = random.Random(f"customer/{seed}/{split}/{index}")
    today = dt.date(2026, 1, 1) + dt.timedelta(days=rng.randrange(365))
    count = rng.choice((1, 2, 2, 3, 3, 4)) if n_orders is None else n_orders
    orders: dict[str, Order] = {}
    while len(orders) < count:
        kind = noun(rng, split)
        if all(kind != order.noun for order in orders.values()):
            order = _make_order(rng, split, today, kind)
            orders[order.order_id] = order
    return Customer(
        customer_id=f"c{index:06d}",
        name=f"{word(rng, split)} {word(rng, split)}",
        tier=rng.choice(TIERS),
        points=rng.randint(10, 4999),
        today=today,
        orders=tuple(orders.values()),
    )
