"""Conversations for training and examples for evaluation and load, all functions of a seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from weir.samples.facts import Fact, judge
from weir.samples.intents import (
    COMMON_BUILDERS,
    INTENTS,
    ORDER_INTENTS,
    STORE_INTENTS,
    Group,
    Scene,
    Turn,
)
from weir.samples.intents_rare import RARE_BUILDERS
from weir.samples.render import Message, policy_sentences, render_system_message
from weir.samples.words import Split
from weir.samples.world import Customer, Store, make_customer, make_store

CORPUS_VERSION: Final = "2"
"""Changes whenever the same seed would give other text."""

_BUILDERS: Final = {**COMMON_BUILDERS, **RARE_BUILDERS}
_WITHOUT_CUSTOMER_SHARE: Final = 0.06
_WITHOUT_PROMPT_SHARE: Final = 0.04
_RARE_SHARE: Final = 0.16
_TRIES: Final = 400


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole talk: the system message, empty if there is none, and its turns."""

    system: str
    turns: tuple[Turn, ...]

    def messages(self) -> list[Message]:
        """System message if there is one, then questions and answers; ends with an answer."""
        system = [Message(role="system", content=self.system)] if self.system else []
        return [*system, *_talk(self.turns)]


@dataclass(frozen=True, slots=True)
class Example:
    """One request with what a right answer must and may claim.

    `messages` ends with the question. `customer` is who asks, also where the messages carry no
    customer block; `template` is the question before its fields were filled in.
    """

    messages: list[Message]
    intent: str
    group: Group
    required: frozenset[Fact]
    allowed: frozenset[Fact]
    answer: str
    store: Store
    customer: Customer
    template: str

    @property
    def entity_id(self) -> str:
        """The customer's id: the entity that online features are looked up for."""
        return self.customer.customer_id


def check(example: Example, answer_text: str) -> bool:
    """True if the answer claims every required fact and no fact that the context does not give."""
    return judge(answer_text, example.required, example.allowed)


def _talk(turns: Sequence[Turn]) -> list[Message]:
    return [
        Message(role=role, content=content)
        for turn in turns
        for role, content in (("user", turn.question), ("assistant", turn.answer))
    ]


def _add_turn(scene: Scene, intents: Sequence[str]) -> bool:
    """Adds one turn of any of `intents` that fits the scene; False if none of a few draws fits."""
    for _ in range(8):
        intent = scene.rng.choice(intents)
        turn = _BUILDERS[intent](scene, intent)
        if turn is not None:
            scene.turns.append(turn)
            return True
    return False


def _draw_group(scene: Scene) -> tuple[str, ...]:
    """Intents to draw the next training turn from; questions about orders are asked most."""
    draw = scene.rng.random()
    if not scene.prompted:
        return ("store_unknown",)
    if scene.customer is None:
        return ("account_unavailable", *STORE_INTENTS, "free_shipping_gap")
    if len(scene.orders) == 2 and scene.turns and scene.turns[-1].subject and draw < 0.5:
        return ("other_order",)
    if draw > 1 - _RARE_SHARE:
        return tuple(RARE_BUILDERS)
    if draw < 0.65:
        return (*ORDER_INTENTS, "other_order", "order_missing")
    return tuple(COMMON_BUILDERS)


def conversations(
    seed: int, split: Split = "train", start: int = 0, easy: bool = False
) -> Iterator[Conversation]:
    """An endless stream of conversations, each with a fresh store and customer.

    Three to ten turns each, so that one context pays for several answers.

    Args:
        start: number of the first one; the stream from 10 is the stream from 0 without its
            first ten.
        easy: short prompts (two orders at most, only the policies that are asked for), to begin
            training with.
    """
    for index in itertools.count(start):
        rng = random.Random(f"conversation/{seed}/{split}/{index}")
        store = make_store(f"corpus{seed}", index, split)
        known = rng.random() >= (0.4 if easy else _WITHOUT_CUSTOMER_SHARE)
        orders = rng.randint(1, 2) if easy else None
        customer = make_customer(f"corpus{seed}", index, split, orders) if known else None
        scene = Scene(rng, split, store, customer)
        scene.prompted = rng.random() >= _WITHOUT_PROMPT_SHARE
        for _ in range(rng.randint(2, 4) if easy else rng.randint(3, 10)):
            _add_turn(scene, _draw_group(scene))
        system = render_system_message(store, customer) if scene.prompted else ""
        if easy:
            system = _shortened(system, scene)
        yield Conversation(system, tuple(scene.turns))


_NEEDS: Final = {
    "account_unavailable": ("contact",),
    "free_shipping_gap": ("shipping",),
    "tier_return": ("return_window", "tier_return"),
    "days_to_return": ("return_window",),
}


def _shortened(system: str, scene: Scene) -> str:
    """The system message without the policies that no turn needs."""
    asked = {need for t in scene.turns for need in _NEEDS.get(t.intent, (t.intent,))}
    unasked = {s for name, s in policy_sentences(scene.store).items() if name not in asked}
    return "\n".join(line for line in system.split("\n") if line not in unasked)


def _zipf_weights(n: int, exponent: float) -> list[float]:
    return [1.0 / rank**exponent for rank in range(1, n + 1)]


def _opening(scene: Scene, intent: str) -> None:
    """Turns before the asked one: always for `other_order`, else none to three at random."""
    if intent == "other_order":
        _add_turn(scene, ORDER_INTENTS)
        return
    if scene.customer is None or scene.rng.random() < 0.6:
        return
    for _ in range(scene.rng.randint(1, 3)):
        _add_turn(scene, tuple(COMMON_BUILDERS))


def _example(
    seed: int, number: int, split: Split, intent: str, entity: int, customers: int, stores: int
) -> Example:
    """Example `number`; tries other draws until the intent fits. Raises ValueError if none does."""
    rng = random.Random(f"example/{seed}/{split}/{number}")
    for retry in range(_TRIES):
        # An intent may not fit this customer (no second order, say): then take the next one.
        index = (entity + retry) % customers
        store = make_store(seed, index % stores, split)
        customer = make_customer(seed, index, split)
        known = None if intent in ("account_unavailable", "store_unknown") else customer
        scene = Scene(rng, split, store, known, prompted=intent != "store_unknown")
        _opening(scene, intent)
        turn = _BUILDERS[intent](scene, intent)
        if turn is None:
            continue
        text = render_system_message(store, scene.customer)
        system = [Message(role="system", content=text)] if scene.prompted else []
        question = Message(role="user", content=turn.question)
        return Example(
            messages=[*system, *_talk(scene.turns), question],
            intent=intent,
            group=INTENTS[intent],
            required=turn.required,
            allowed=turn.allowed,
            answer=turn.answer,
            store=store,
            customer=customer,
            template=turn.template,
        )
    raise ValueError(f"no customer found for intent {intent!r}")


def requests(
    seed: int,
    n: int,
    split: Split = "heldout",
    intents: Sequence[str] | None = None,
    zipf: float | None = None,
    customers: int = 1000,
    stores: int = 8,
) -> Iterator[Example]:
    """`n` seeded examples for load generation and evaluation.

    Args:
        intents: names from `INTENTS`, taken in turn; all of them if None.
        zipf: exponent of the customers' popularity (1.0 is typical web traffic); None asks for
            every customer equally often.
        customers: how many customers there are; customer `i` shops at store `i % stores`.

    Raises:
        ValueError: an unknown intent, or no customers or stores.
    """
    names = tuple(intents or INTENTS)
    unknown = sorted(set(names) - set(INTENTS))
    if unknown:
        raise ValueError(f"unknown intents {unknown}; expected some of {sorted(INTENTS)}")
    if customers < 1 or stores < 1:
        raise ValueError("customers and stores must be at least 1")
    rng = random.Random(f"requests/{seed}/{split}")
    weights = _zipf_weights(customers, zipf or 0.0)
    entities = rng.choices(range(customers), weights=weights, k=n)
    for number, entity in enumerate(entities):
        yield _example(seed, number, split, names[number % len(names)], entity, customers, stores)
