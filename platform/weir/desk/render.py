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


def render_system(store: Store) -> str:
    """The store's policies: the shared head of every prompt of this store."""
    silver, gold, platinum = store.extra_return_days
    return "\n".join(
        (
            f"You are the support desk of {store.name}. Answer briefly from the facts below.",
            f"Opening hours: {store.opens} to {store.closes}, Monday to {store.last_weekday}",
            f"Phone: {store.phone}",
            f"Email: {store.email}",
            f"Returns: within {store.return_days} days of delivery",
            f"Extra return days: silver {silver}, gold {gold}, platinum {platinum}",
            f"Shipping: {eur(store.shipping_fee_eur)}, "
            f"free from {eur(store.free_shipping_from_eur)}",
            f"Warranty: {store.warranty_months} months",
        )
    )


def _render_order(order: Order) -> str:
    arrival = "arrived" if order.delivered else "due"
    return (
        f"{order.order_id}: {order.item}, {eur(order.price_eur)}, {order.status}, "
        f"ordered {day(order.ordered)}, {arrival} {day(order.arrives)}"
    )


def render_context(customer: Customer) -> str:
    """The customer's block, delimited by `<customer>` lines; what enrichment adds to a prompt."""
    return "\n".join(
        (
            "<customer>",
            f"Name: {customer.name}",
            f"Tier: {customer.tier}, {customer.points} points",
            f"Today: {day(customer.today)}",
            f"Orders: {len(customer.orders)}",
            *(_render_order(order) for order in customer.orders),
            "</customer>",
        )
    )


def render_system_message(store: Store, customer: Customer | None) -> str:
    """The whole system message; without the block if the customer is unknown."""
    if customer is None:
        return render_system(store)
    return f"{render_system(store)}\n{render_context(customer)}"
