"""From the world to text: what the model reads before the first question.

The store's policies come first and are the same for all its customers, so that their KV blocks can
be shared; the customer's block follows and is the part that online features fill in.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypedDict

from weir.desk.world import Customer, Order, Store, day


class Message(TypedDict):
    """One chat message: `role` is system, user or assistant."""

    role: str
    content: str


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


def policy_sentences(store: Store) -> dict[str, str]:
    """What the store's prompt says, by the intent that asks for it."""
    silver, gold, platinum = store.extra_return_days
    fee, free = eur(store.shipping_fee_eur), eur(store.free_shipping_from_eur)
    return {
        "opening_hours": f"We are open from {store.opens} to {store.closes}, "
        f"Monday to {store.last_weekday}.",
        "contact": f"Call us at {store.phone} or write to {store.email}.",
        "return_window": f"Items can be returned within {store.return_days} days of delivery.",
        "tier_return": f"More return days: silver {silver}, gold {gold}, platinum {platinum}.",
        "shipping": f"Shipping costs {fee} and is free from {free}.",
        "warranty": f"The warranty is {store.warranty_months} months.",
    }


def render_system(store: Store) -> str:
    """The store's policies: the shared head of every prompt of this store."""
    head = f"You are the support desk of {store.name}. Answer briefly from these facts."
    return "\n".join((head, *policy_sentences(store).values()))


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


def _count(orders: Sequence[object]) -> str:
    return "1 order" if len(orders) == 1 else f"{len(orders)} orders"


def order_count(customer: Customer) -> str:
    """How many orders the customer has, as the desk writes it: `1 order`, `3 orders`."""
    return _count(customer.orders)


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
            f"The customer {name} is a {tier} member with {points} points and {_count(orders)}.",
            f"Today is {day(today)}.",
            *(_order_line(order) for order in orders),
            *_beside(orders),
            "</customer>",
        )
    )


def order_line(order: Order) -> OrderLine:
    """What the desk says about `order`."""
    return OrderLine(
        order.order_id, order.item, order.status, order.ordered, order.arrives, order.price_eur
    )


def render_context(customer: Customer) -> str:
    """The block of a customer of the desk's world; what enrichment adds to a prompt."""
    return context_block(
        name=customer.name,
        tier=customer.tier,
        points=customer.points,
        today=customer.today,
        orders=[order_line(order) for order in customer.orders],
    )


def render_system_message(store: Store, customer: Customer | None) -> str:
    """The whole system message; without the block if the customer is unknown."""
    if customer is None:
        return render_system(store)
    return f"{render_system(store)}\n{render_context(customer)}"
