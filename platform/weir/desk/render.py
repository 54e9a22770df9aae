"""From the world to text: what the model reads before the first question.

The store's policies come first and are the same for all its customers, so that their KV blocks can
be shared; the customer's block follows and is the part that online features fill in.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypedDict

from weir.desk.world import Customer, Order, Store, day


class Message(TypedDict):
    """One chat message: `role` is system, user or assistant."""

    role: str
    content: str


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


def _render_order(order: Order) -> str:
    arrival = "arrived on" if order.delivered else "due on"
    return (
        f"Order {order.order_id}, the {order.item}: {order.status}, "
        f"{arrival} {day(order.arrives)}, "
        f"ordered on {day(order.ordered)}, costs {eur(order.price_eur)}"
    )


def order_count(customer: Customer) -> str:
    """How many orders the customer has, as the desk writes it: `1 order`, `3 orders`."""
    return "1 order" if len(customer.orders) == 1 else f"{len(customer.orders)} orders"


def render_context(customer: Customer) -> str:
    """The customer's block, delimited by `<customer>` lines; what enrichment adds to a prompt."""
    return "\n".join(
        (
            "<customer>",
            f"The customer {customer.name} is a {customer.tier} member with "
            f"{customer.points} points and {order_count(customer)}.",
            f"Today is {day(customer.today)}.",
            *(_render_order(order) for order in customer.orders),
            "</customer>",
        )
    )


def render_system_message(store: Store, customer: Customer | None) -> str:
    """The whole system message; without the block if the customer is unknown."""
    if customer is None:
        return render_system(store)
    return f"{render_system(store)}\n{render_context(customer)}"
