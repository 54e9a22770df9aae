"""The block that tells a model of a support desk about one customer, from plain fields.

The text is the one that the teacher was trained on (:mod:`weir.samples` has the rest of its world);
serving writes it from online features.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def day(date: dt.date) -> str:
    """A date as the desk writes it, for example `17 March`."""
    return f"{date.day} {MONTHS[date.month - 1]}"


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One open order in plain fields; `arrives` is the day of delivery if that is the status.

    `item` is what the answers call it ("Woflo desk lamp"); `price_eur` is in whole EUR.
    """

    order_id: str
    item: str
    status: str
    ordered: dt.date
    arrives: dt.date
    price_eur: int


def eur(amount: Decimal | int) -> str:
    """An amount as the desk writes it: `39 EUR`, `4.90 EUR`."""
    return f"{amount} EUR" if isinstance(amount, int) else f"{amount:.2f} EUR"


def _order_line(order: OrderLine) -> str:
    """One line: the item leads to the id, and every other sentence gives one fact after the id.

    A small model copies what followed the same words before. So each fact follows the words that
    an answer says before it, and no fact has to be looked for in another sentence.
    """
    name = f"Order {order.order_id}"
    arrival = "arrived" if order.status == "delivered" else "arrives"
    return (
        f"They bought the {order.item} with order {order.order_id}. "
        f"{name} contains the {order.item}. "
        f"{name} is {order.status}. {name} {arrival} on {day(order.arrives)}. "
        f"{name} was placed on {day(order.ordered)}. {name} costs {eur(order.price_eur)}."
    )


def _beside(orders: Sequence[OrderLine]) -> tuple[str, ...]:
    """For two orders, the line that leads from each to "the other one"; else nothing."""
    if len(orders) != 2:
        return ()
    one, two = (order.order_id for order in orders)
    line = f"{besides(one, two)} {besides(two, one)}"
    return (line,)


def besides(known: str, other: str) -> str:
    """The sentence that names a customer's only other order."""
    return f"The order next to {known} is {other}."


def count_orders(orders: Sequence[object]) -> str:
    """How many orders there are, as the desk writes it: `1 order`, `3 orders`."""
    return "1 order" if len(orders) == 1 else f"{len(orders)} orders"


def context_block(
    *, name: str, tier: str, points: int, today: dt.date, orders: Sequence[OrderLine]
) -> str:
    """A customer's block from plain fields, as an online feature store would give them.

    The text is the one that the teacher was trained on: delimited by `<customer>` lines, one line
    per order, and one that pairs them if there are two. No orders is fine.
    """
    return "\n".join(
        (
            "<customer>",
            f"The customer {name} is a {tier} member with {points} points "
            f"and {count_orders(orders)}.",
            f"Today is {day(today)}.",
            *(_order_line(order) for order in orders),
            *_beside(orders),
            "</customer>",
        )
    )
