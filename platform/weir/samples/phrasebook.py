"""The shape of an intent's phrases, and how a phrase becomes a question."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from weir.samples.words import Split
from weir.samples.world import Order

_OPENERS: Final = ("Hi, ", "Hello, ", "Hey, ", "Good morning, ", "Sorry, ", "One question: ")
_CLOSERS: Final = (" Thanks.", " Thank you!", " Please help.")
_REFS_BY_ID: Final = (
    "order {id}",
    "order {id}",
    "my order {id}",
    "order #{id}",
    "order number {id}",
)
_REQUESTS: Final = (
    "Tell me {}.",
    "Please tell me {}.",
    "Can you tell me {}?",
    "Could you tell me {}?",
    "Do you know {}?",
    "I would like to know {}.",
)


@dataclass(frozen=True, slots=True)
class Phrases:
    """Question and answer templates of one intent.

    `follow_ups` refer to the order of the turn before as "it"; `answers_delivered` replaces
    `answers` for a delivered order; `ref_by_item` allows to name an order by its item.
    """

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    answers: tuple[str, ...]
    follow_ups: tuple[str, ...] = ()
    heldout_follow_ups: tuple[str, ...] = ()
    answers_delivered: tuple[str, ...] = ()
    ref_by_item: bool = True

    def questions(self, split: Split) -> tuple[str, ...]:
        """Templates of first questions of `split`."""
        return self.train if split == "train" else self.heldout

    def follow_up_questions(self, split: Split) -> tuple[str, ...]:
        """Templates of follow-up questions of `split`."""
        return self.follow_ups if split == "train" else self.heldout_follow_ups


def told(*clauses: str) -> tuple[str, ...]:
    """The clauses as requests: "Tell me {clause}.", "Can you tell me {clause}?" and so on."""
    return tuple(request.format(clause) for request in _REQUESTS for clause in clauses)


def reference(rng: random.Random, order: Order, by_item: bool) -> dict[str, str]:
    """How a customer names an order: mostly by id, at times by its item.

    Returns:
        Template fields: `ref`, and `lead`, the sentence with which an answer gets from the item
        to the order's id; empty if the question gave the id.
    """
    if not by_item or rng.random() < 0.65:
        return {"ref": rng.choice(_REFS_BY_ID).format(id=order.order_id), "lead": ""}
    thing = rng.choice((order.noun, order.item))
    lead = f"You bought the {thing} with order {order.order_id}. "
    return {"ref": f"{rng.choice(('my', 'the'))} {thing}", "lead": lead}


def decorate(rng: random.Random, question: str) -> str:
    """Adds what people add (greeting, thanks) and drops what they drop (capitals, marks)."""
    draw = rng.random()
    if draw < 0.15:
        return rng.choice(_OPENERS) + question[0].lower() + question[1:]
    if draw < 0.22:
        return question + rng.choice(_CLOSERS)
    if draw < 0.32:
        return question[0].lower() + question[1:].rstrip("?.")
    return question
