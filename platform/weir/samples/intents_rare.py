"""Builders of the rare intents: sums, comparisons, counts and policy with tier."""

from __future__ import annotations

from typing import Final

from weir.customer_block import day, eur
from weir.samples.facts import Fact, money
from weir.samples.intents import PHRASES, Builder, Scene, Turn, finish, order_facts, order_fields
from weir.samples.phrasebook import reference
from weir.samples.words import STATUSES
from weir.samples.world import Order


def _template(scene: Scene, intent: str) -> str:
    return scene.rng.choice(PHRASES[intent].questions(scene.split))


def _two_orders(scene: Scene) -> tuple[Order, Order] | None:
    if len(scene.orders) < 2:
        return None
    first, second = scene.rng.sample(scene.orders, 2)
    return first, second


def build_total_price(scene: Scene, intent: str) -> Turn | None:
    """The sum of two orders, in EUR."""
    pair = _two_orders(scene)
    if pair is None:
        return None
    a, b = pair
    total = a.price_eur + b.price_eur
    fields = {
        "a": a.order_id,
        "b": b.order_id,
        "price_a": eur(a.price_eur),
        "price_b": eur(b.price_eur),
        "total": eur(total),
    }
    return finish(scene, intent, _template(scene, intent), fields, frozenset({money(total)}))


def build_first_arrival(scene: Scene, intent: str) -> Turn | None:
    """Which of two orders arrives first; only orders under way, on different days."""
    pair = _two_orders(scene)
    if pair is None or pair[0].arrives == pair[1].arrives or any(o.delivered for o in pair):
        return None
    a, b = pair
    first = min(pair, key=lambda order: order.arrives)
    fields = {
        "a": a.order_id,
        "b": b.order_id,
        "first": first.order_id,
        "arrives_first": day(first.arrives),
    }
    required = frozenset({Fact("order", first.order_id)})
    return finish(
        scene, intent, _template(scene, intent), fields, required, allowed=order_facts(first)
    )


def build_most_expensive(scene: Scene, intent: str) -> Turn | None:
    """The customer's most expensive order; no ties."""
    prices = sorted((order.price_eur for order in scene.orders), reverse=True)
    if len(prices) < 2 or prices[0] == prices[1]:
        return None
    top = max(scene.orders, key=lambda order: order.price_eur)
    fields = {"top": top.order_id, "price_top": eur(top.price_eur)}
    required = frozenset({Fact("order", top.order_id)})
    return finish(
        scene, intent, _template(scene, intent), fields, required, allowed=order_facts(top)
    )


def build_count_status(scene: Scene, intent: str) -> Turn | None:
    """How many of the customer's orders have a status; the answer can be 0."""
    if len(scene.orders) < 2:
        return None
    present = [order.status for order in scene.orders]
    status = scene.rng.choice(present if scene.rng.random() < 0.75 else STATUSES)
    count = str(present.count(status))
    fields = {"status": status, "count": count}
    required = frozenset({Fact("count", count)})
    return finish(scene, intent, _template(scene, intent), fields, required)


def build_tier_return(scene: Scene, intent: str) -> Turn | None:
    """The return window with the extra days of the customer's tier."""
    if scene.customer is None:
        return None
    tier, base = scene.customer.tier, scene.store.return_days
    extra = scene.store.extra_days(tier)
    fields = {
        "tier": tier,
        "return_days": str(base),
        "extra_days": str(extra),
        "tier_days": str(base + extra),
    }
    required = frozenset({Fact("days", str(base + extra))})
    return finish(scene, intent, _template(scene, intent), fields, required)


def build_days_to_return(scene: Scene, intent: str) -> Turn | None:
    """Days left in the store's return window for a delivered order (without tier extras)."""
    arrived = [order for order in scene.orders if order.delivered]
    if scene.customer is None or not arrived:
        return None
    order = scene.rng.choice(arrived)
    left = scene.store.return_days - (scene.customer.today - order.arrives).days
    if left < 2:
        return None
    fields = order_fields(order) | {
        **reference(scene.rng, order, by_item=True),
        "today": day(scene.customer.today),
        "days_left": str(left),
    }
    required = frozenset({Fact("days", str(left))})
    return finish(scene, intent, _template(scene, intent), fields, required, order)


def build_free_shipping_gap(scene: Scene, intent: str) -> Turn | None:
    """How much is missing for free shipping, in EUR."""
    threshold = scene.store.free_shipping_from_eur
    basket = scene.rng.randrange(10, threshold, 10)
    gap = threshold - basket
    fields = {"basket": eur(basket), "free_from": eur(threshold), "gap": eur(gap)}
    return finish(
        scene,
        intent,
        _template(scene, intent),
        fields,
        frozenset({money(gap)}),
        allowed=frozenset({money(basket)}),
    )


RARE_BUILDERS: Final[dict[str, Builder]] = {
    "total_price": build_total_price,
    "first_arrival": build_first_arrival,
    "most_expensive": build_most_expensive,
    "count_status": build_count_status,
    "tier_return": build_tier_return,
    "days_to_return": build_days_to_return,
    "free_shipping_gap": build_free_shipping_gap,
}
"""Builder of each rare intent; it answers None where the intent does not fit the scene."""
