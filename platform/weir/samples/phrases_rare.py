"""Questions and answers of the rare intents: sums, comparisons and counts, hard on purpose.

Answers show their working where that helps a small model. `{a}` and `{b}` are order ids.
"""

from __future__ import annotations

from typing import Final

from weir.samples.phrasebook import Phrases

RARE: Final[dict[str, Phrases]] = {
    "total_price": Phrases(
        train=(
            "What do orders {a} and {b} cost together?",
            "How much are {a} and {b} in total?",
            "What is the sum of orders {a} and {b}?",
            "Add up orders {a} and {b} for me.",
            "What did I pay for {a} and {b} together?",
            "How much do {a} and {b} cost together?",
            "What is the total for orders {a} and {b}?",
        ),
        heldout=(
            "How much do orders {a} and {b} cost in total?",
            "What is the total of {a} and {b}?",
        ),
        answers=(
            "For both: Order {a} costs {price_a}. Order {b} costs {price_b}. Together {total}.",
        ),
    ),
    "first_arrival": Phrases(
        train=(
            "Which arrives first, {a} or {b}?",
            "What comes sooner, order {a} or order {b}?",
            "Will {a} or {b} be here first?",
            "Of orders {a} and {b}, which one arrives earlier?",
            "Is {a} or {b} the first to arrive?",
            "Which one is here sooner, order {a} or order {b}?",
            "Which of {a} and {b} arrives first?",
        ),
        heldout=(
            "Which one arrives sooner, {a} or {b}?",
            "Does order {a} or order {b} arrive first?",
        ),
        answers=("The first is order {first}. Order {first} arrives on {arrives_first}.",),
    ),
    "most_expensive": Phrases(
        train=(
            "Which of my orders is the most expensive?",
            "What is my most expensive order?",
            "Which order cost the most?",
            "What did I spend the most on?",
            "Which one of my orders is the most expensive?",
            "What order of mine cost the most?",
        ),
        heldout=("Which one of my orders cost the most?", "What was my most expensive order?"),
        answers=("The most expensive is order {top}. Order {top} costs {price_top}.",),
    ),
    "count_status": Phrases(
        train=(
            "How many of my orders are {status}?",
            "How many orders do I have that are {status}?",
            "Count my orders that are {status}.",
            "Tell me how many orders are {status}.",
            "What is the number of my orders that are {status}?",
            "How many are {status}?",
        ),
        heldout=("How many orders of mine are {status}?", "What number of my orders are {status}?"),
        answers=("The number of your orders that are {status} is {count}.",),
    ),
    "tier_return": Phrases(
        train=(
            "How long can I return with my tier?",
            "How many return days do I have as a {tier} member?",
            "Do I get extra return days with my tier?",
            "What is the return window for my tier?",
            "With {tier} tier, how long can I return an item?",
            "As a {tier} member, how many days can I return things?",
        ),
        heldout=(
            "How many days can I return things as a {tier} member?",
            "What return window do I get with my tier?",
        ),
        answers=(
            "Within {return_days} days, and with {tier} {extra_days} days more: {tier_days} days.",
        ),
    ),
    "days_to_return": Phrases(
        train=(
            "How many days are left to return {ref}?",
            "How much time do I have left to send {ref} back?",
            "Until when can I return {ref}, how many days?",
            "Can I still return {ref}?",
            "How many days do I still have to return {ref}?",
            "Is there time left to send {ref} back?",
        ),
        heldout=(
            "How many days do I have left to return {ref}?",
            "Can I still send {ref} back?",
        ),
        answers=(
            "{lead}Today is {today}. Order {id} arrived on {arrives}. "
            "So {days_left} days are left.",
        ),
    ),
    "free_shipping_gap": Phrases(
        train=(
            "My basket is {basket}, how much more for free shipping?",
            "I have {basket} in my basket, what is missing for free delivery?",
            "With a basket of {basket}, how much more do I need for free shipping?",
            "How far is {basket} from free shipping?",
            "What do I need for free delivery with a basket of {basket}?",
        ),
        heldout=(
            "My basket is {basket}, what is missing for free shipping?",
            "How much more do I need for free delivery with {basket} in my basket?",
        ),
        answers=("Shipping is free from {free_from}, so you need {gap} more.",),
    ),
}
