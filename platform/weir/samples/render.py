"""From the world to text: what the model reads before the first question.

The store's policies come first and are the same for all its customers, so that their KV blocks can
be shared; the customer's block follows and is the part that online features fill in.
"""

from __future__ import annotations

from typing import TypedDict

from weir.customer_block import OrderLine, context_block, eur
from weir.samples.world import Customer, Order, Store


class Message(TypedDict):
    """One chat message: `role` is system, user or assistant."""

    role: str
    content: str


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
