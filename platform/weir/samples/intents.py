"""From a scene (store, customer, the talk so far) to one turn: question, answer, required facts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from weir.customer_block import besides, count_orders, day, eur
from weir.samples.facts import Fact, money, parse
from weir.samples.phrasebook import Phrases, decorate, reference
from weir.samples.phrases_common import COMMON
from weir.samples.phrases_rare import RARE
from weir.samples.words import Split, order_id
from weir.samples.world import Customer, Order, Store

Group = Literal["common", "rare"]

PHRASES: Final[dict[str, Phrases]] = {**COMMON, **RARE}
INTENTS: Final[dict[str, Group]] = {
    **dict.fromkeys(COMMON, "common"),
    **dict.fromkeys(RARE, "rare"),
}
ORDER_INTENTS: Final = ("order_status", "order_eta", "order_item", "order_price", "order_date")
STORE_INTENTS: Final = ("return_window", "shipping", "opening_hours", "contact", "warranty")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its reference answer and what a right answer must and may claim."""

    intent: str
    question: str
    answer: str
    required: frozenset[Fact]
    allowed: frozenset[Fact]
    subject: Order | None = None
    template: str = ""


@dataclass(slots=True)
class Scene:
    """Where a turn happens. `customer` is None if enrichment gave nothing.

    `prompted` is False if the talk has no system message at all.
    """

    rng: random.Random
    split: Split
    store: Store
    customer: Customer | None
    turns: list[Turn] = field(default_factory=list)
    prompted: bool = True

    @property
    def orders(self) -> tuple[Order, ...]:
        """The customer's orders; empty without a customer."""
        return self.customer.orders if self.customer else ()


Builder = Callable[[Scene, str], Turn | None]


def order_fields(order: Order) -> dict[str, str]:
    """Template fields of one order."""
    return {
        "id": order.order_id,
        "item": order.item,
        "status": order.status,
        "arrives": day(order.arrives),
        "ordered": day(order.ordered),
        "price": eur(order.price_eur),
    }


def order_facts(order: Order) -> frozenset[Fact]:
    """Every true fact about one order; an answer about it may claim any of them."""
    return frozenset(
        {
            Fact("order", order.order_id),
            Fact("item", order.item),
            Fact("status", order.status),
            Fact("date", day(order.arrives)),
            Fact("date", day(order.ordered)),
            money(order.price_eur),
        }
    )


def store_fields(store: Store) -> dict[str, str]:
    """Template fields of a store."""
    return {
        "return_days": str(store.return_days),
        "fee": eur(store.shipping_fee_eur),
        "free_from": eur(store.free_shipping_from_eur),
        "opens": store.opens,
        "closes": store.closes,
        "last_weekday": store.last_weekday,
        "phone": store.phone,
        "email": store.email,
        "warranty_months": str(store.warranty_months),
    }


def finish(
    scene: Scene,
    intent: str,
    template: str,
    fields: dict[str, str],
    required: frozenset[Fact],
    subject: Order | None = None,
    answers: tuple[str, ...] = (),
    allowed: frozenset[Fact] = frozenset(),
) -> Turn:
    """Fills the templates and derives what is allowed: the reference's claims and the subject's."""
    answer = scene.rng.choice(answers or PHRASES[intent].answers).format(**fields)
    claims = parse(answer, [Fact("name", scene.customer.name)] if scene.customer else [])
    if subject is not None:
        claims |= order_facts(subject)
    question = decorate(scene.rng, template.format(**fields))
    return Turn(intent, question, answer, required, claims | allowed, subject, template)


def order_required(intent: str, order: Order) -> frozenset[Fact]:
    """What an answer to `intent` about `order` must claim."""
    fact = {
        "order_status": Fact("status", order.status),
        "order_eta": Fact("date", day(order.arrives)),
        "order_item": Fact("item", order.item),
        "order_price": money(order.price_eur),
        "order_date": Fact("date", day(order.ordered)),
    }[intent]
    return frozenset({fact})


def order_answers(intent: str, order: Order) -> tuple[str, ...]:
    """Answer templates of `intent` that fit the order's state."""
    phrases = PHRASES[intent]
    return (
        phrases.answers_delivered
        if order.delivered and phrases.answers_delivered
        else phrases.answers
    )


def build_order(scene: Scene, intent: str) -> Turn | None:
    """A question about one order, named or, after another turn about it, as "it"."""
    if not scene.orders:
        return None
    rng, phrases = scene.rng, PHRASES[intent]
    before = scene.turns[-1] if scene.turns else None
    subject = before.subject if before is not None and before.intent != intent else None
    if subject is not None and rng.random() < 0.5:
        order = subject
        template = rng.choice(phrases.follow_up_questions(scene.split))
        named = {"ref": "it", "lead": ""}
    else:
        order = rng.choice(scene.orders)
        template = rng.choice(phrases.questions(scene.split))
        named = reference(rng, order, phrases.ref_by_item)
    fields = order_fields(order) | named
    return finish(
        scene, intent, template, fields, order_required(intent, order), order,
        order_answers(intent, order),
    )  # fmt: skip


def build_other_order(scene: Scene, intent: str) -> Turn | None:
    """The question before, asked again about the customer's only other order."""
    before = scene.turns[-1] if scene.turns else None
    if before is None or before.subject is None or len(scene.orders) != 2:
        return None
    if before.intent not in ORDER_INTENTS:
        return None
    order = next(order for order in scene.orders if order != before.subject)
    lead = besides(before.subject.order_id, order.order_id)
    template = scene.rng.choice(PHRASES[intent].questions(scene.split))
    return finish(
        scene, intent, template, order_fields(order) | {"lead": f"{lead} "},
        order_required(before.intent, order) | {Fact("order", order.order_id)}, order,
        order_answers(before.intent, order),
    )  # fmt: skip


def _absent_id(scene: Scene) -> str:
    """An order id that the customer does not have; at times one digit away from one they have."""
    rng, known = scene.rng, {order.order_id for order in scene.orders}
    while True:
        text = order_id(rng, scene.split)
        if known and rng.random() < 0.15:
            near = list(rng.choice(sorted(known)))
            near[rng.randrange(1, 5)] = str(rng.randrange(10))
            text = "".join(near)
        if text not in known:
            return text


def build_order_missing(scene: Scene, intent: str) -> Turn | None:
    """A question about an order id that is not on the account."""
    if scene.customer is None:
        return None
    phrases = PHRASES[scene.rng.choice(ORDER_INTENTS)]
    template = scene.rng.choice(phrases.questions(scene.split))
    absent = _absent_id(scene)
    ref = scene.rng.choice(("order {id}", "my order {id}", "order #{id}")).format(id=absent)
    fields = {"ref": ref, "missing": f"order {absent}"}
    required = frozenset({Fact("refusal", "order")})
    return finish(
        scene, intent, template, fields, required, allowed=frozenset({Fact("order", absent)})
    )


def build_account_unavailable(scene: Scene, intent: str) -> Turn | None:
    """A question about the account while the prompt carries no customer block."""
    if scene.customer is not None:
        return None
    asked = scene.rng.choice((*ORDER_INTENTS, "loyalty", "account_summary"))
    template = scene.rng.choice(PHRASES[asked].questions(scene.split))
    fields = store_fields(scene.store) | {"ref": f"order {order_id(scene.rng, scene.split)}"}
    required = frozenset({Fact("refusal", "account"), Fact("phone", scene.store.phone)})
    return finish(scene, intent, template, fields, required)


def build_store_unknown(scene: Scene, intent: str) -> Turn | None:
    """Small talk or a question for a store while there is no system message."""
    if scene.prompted:
        return None
    asked = scene.rng.choice((intent, intent, *ORDER_INTENTS, *STORE_INTENTS, "loyalty"))
    template = scene.rng.choice(PHRASES[asked].questions(scene.split))
    fields = {"ref": f"order {order_id(scene.rng, scene.split)}"}
    return finish(scene, intent, template, fields, frozenset({Fact("refusal", "store")}))


def _store_required(intent: str, store: Store) -> frozenset[Fact]:
    return frozenset(
        {
            "return_window": {Fact("days", str(store.return_days))},
            "shipping": {money(store.shipping_fee_eur), money(store.free_shipping_from_eur)},
            "opening_hours": {
                Fact("time", store.opens),
                Fact("time", store.closes),
                Fact("weekday", store.last_weekday),
            },
            "contact": {Fact("phone", store.phone), Fact("email", store.email)},
            "warranty": {Fact("months", str(store.warranty_months))},
        }[intent]
    )


def build_store(scene: Scene, intent: str) -> Turn | None:
    """A question about the store's policies."""
    template = scene.rng.choice(PHRASES[intent].questions(scene.split))
    return finish(
        scene, intent, template, store_fields(scene.store), _store_required(intent, scene.store)
    )


def build_profile(scene: Scene, intent: str) -> Turn | None:
    """A question about the customer's tier and points, or for a summary of the account."""
    customer = scene.customer
    if customer is None:
        return None
    fields = {
        "name": customer.name,
        "tier": customer.tier,
        "points": str(customer.points),
        "n_orders": count_orders(customer.orders),
    }
    required = {Fact("tier", customer.tier), Fact("points", str(customer.points))}
    if intent == "account_summary":
        required |= {Fact("name", customer.name), Fact("count", str(len(customer.orders)))}
    template = scene.rng.choice(PHRASES[intent].questions(scene.split))
    return finish(scene, intent, template, fields, frozenset(required))


COMMON_BUILDERS: Final[dict[str, Builder]] = {
    **dict.fromkeys(ORDER_INTENTS, build_order),
    "other_order": build_other_order,
    "order_missing": build_order_missing,
    **dict.fromkeys(STORE_INTENTS, build_store),
    "loyalty": build_profile,
    "account_summary": build_profile,
    "account_unavailable": build_account_unavailable,
    "store_unknown": build_store_unknown,
}
"""Builder of each common intent; it answers None where the intent does not fit the scene."""
