"""Words that the desk's world is made of, and the rule that holds some of them out.

Names, brands, store names and order ids belong to the split that a hash of the string assigns them
to: no list has to be kept, and no string can ever be in both splits.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final, Literal

Split = Literal["train", "heldout"]

HELDOUT_SHARE: Final = 0.2
"""Share of all possible strings that belong to the held-out split."""

WEEKDAYS: Final = ("Monday", "Friday", "Saturday", "Sunday")
TIERS: Final = ("bronze", "silver", "gold", "platinum")
STATUSES: Final = ("processing", "packed", "shipped", "delayed", "on hold", "delivered")
STORE_KINDS: Final = (
    "Supply",
    "Outfitters",
    "Home",
    "Market",
    "Trading",
    "Goods",
    "Living",
    "Works",
)

_NOUNS_TRAIN: Final = """
kettle|desk lamp|rain jacket|backpack|office chair|bookshelf|mug|frying pan|blender|toaster|tent
sleeping bag|headphones|keyboard|monitor|mouse|notebook|water bottle|yoga mat|bicycle helmet
hiking boots|scarf|sweater|umbrella|wallet|watch|camera|tripod|speaker|charger|phone case|carpet
curtain|cushion|mirror|wall clock|vase|candle|garden hose|shovel|drill|hammer|toolbox|ladder
paint set|puzzle|board game|guitar|drum|violin|suitcase|towel|bathrobe|soap dish|coffee grinder
teapot|cutting board|knife set|oven tray|lunch box|picnic basket|side table|stool|coat rack
""".replace("\n", "|")
_NOUNS_HELDOUT: Final = """
wool blanket|sandals|lantern|salt mill|waffle iron|pencil case|rocking chair|flower pot|tablet stand
"""


def _words(block: str) -> tuple[str, ...]:
    return tuple(word for word in block.replace("\n", "|").split("|") if word)


TRAIN_NOUNS: Final = _words(_NOUNS_TRAIN)
HELDOUT_NOUNS: Final = _words(_NOUNS_HELDOUT)
NOUNS: Final = TRAIN_NOUNS + HELDOUT_NOUNS

_ONSETS: Final = (*"bcdfghjklmnprstvwz", "br", "cl", "dr", "fl", "gr", "kr", "pl", "st", "tr")
_VOWELS: Final = (*"aeiouaeio", "ia", "ea", "au", "ei")
_CODAS: Final = ("", "", "", "", "n", "r", "l", "s", "x", "m", "th", "nd", "rk")


def split_of(text: str) -> Split:
    """The split a string belongs to, by its hash: stable over runs, machines and versions."""
    first = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4], "big")
    return "heldout" if first < HELDOUT_SHARE * 2**32 else "train"


def word(rng: random.Random, split: Split) -> str:
    """A capitalised invented word of two or three syllables that belongs to `split`."""
    while True:
        syllables = rng.choice((2, 2, 3))
        text = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
        text += rng.choice(_CODAS)
        if split_of(text) == split:
            return text.capitalize()


def order_id(rng: random.Random, split: Split) -> str:
    """A five-digit order id that belongs to `split`."""
    while True:
        text = str(rng.randrange(10_000, 100_000))
        if split_of(text) == split:
            return text


def noun(rng: random.Random, split: Split) -> str:
    """A product noun.

    A quarter of the held-out ones never occur in training, and a third of those in training are
    invented, so that nouns have to be copied too.
    """
    if split == "heldout":
        return rng.choice(HELDOUT_NOUNS if rng.random() < 0.25 else TRAIN_NOUNS)
    if rng.random() < 1 / 3:
        invented = [word(rng, split).lower() for _ in range(rng.randint(1, 2))]
        return " ".join(invented)
    return rng.choice(TRAIN_NOUNS)
