"""Facts in an answer: the types, the parser and the rule that tells right answers from wrong.

A fact is a kind and a normalised value, for example `Fact("date", "17 March")`. The parser reads
every fact of a known kind out of free text, so that an answer is judged by what it claims and not
by how it is worded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from weir.customer_block import MONTHS
from weir.samples.words import NOUNS, STATUSES, TIERS, WEEKDAYS

FactKind = Literal[
    "order",
    "item",
    "name",
    "status",
    "date",
    "money_eur",
    "days",
    "months",
    "points",
    "count",
    "time",
    "weekday",
    "phone",
    "email",
    "tier",
    "refusal",
]


@dataclass(frozen=True, slots=True, order=True)
class Fact:
    """One claim: its kind and its normalised value (money without trailing zeros, and so on)."""

    kind: FactKind
    value: str


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


# Tried in this order at each position: a longer form must come before one that is a part of it.
_PATTERNS: tuple[tuple[FactKind, str], ...] = (
    ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("phone", r"\b\d{4}-\d{3}-\d{3}\b"),
    ("time", r"\b\d{1,2}:\d{2}\b"),
    ("date", rf"\b\d{{1,2}} (?:{_alternatives(MONTHS)})\b"),
    ("money_eur", r"\b\d+(?:\.\d+)? EUR\b"),
    ("days", r"\b\d+ days?\b"),
    ("months", r"\b\d+ months?\b"),
    ("points", r"\b\d+ points?\b"),
    ("order", r"\b\d{5}\b"),
    ("count", r"\b\d+(?:\.\d+)?\b"),
    ("item", rf"\b(?!The |Your |My )[A-Z][a-z]+ (?:{_alternatives(NOUNS)})\b"),
    ("status", rf"\b(?:{_alternatives(STATUSES)})\b"),
    ("tier", rf"\b(?:{_alternatives(TIERS)})\b"),
    ("weekday", rf"\b(?:{_alternatives(WEEKDAYS)})\b"),
    ("refusal", r"\bcannot (?:find|see) (?P<what>your account|\w+)"),
)
_SCANNER = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS))


def money(amount: Decimal | int) -> Fact:
    """An amount in EUR as a fact; 4.90 and 4.9 are the same fact."""
    return Fact("money_eur", f"{Decimal(amount).normalize():f}")


def _fact(match: re.Match[str]) -> Fact:
    kind: FactKind = match.lastgroup  # type: ignore[assignment]
    text = match.group(kind)
    if kind == "refusal":
        what = {"your account": "account", "any": "store"}.get(match.group("what"), "order")
        return Fact("refusal", what)
    if kind == "money_eur":
        return money(Decimal(text.removesuffix(" EUR")))
    if kind in ("days", "months", "points"):
        return Fact(kind, text.split(" ")[0])
    return Fact(kind, text)


def parse(text: str, known: Iterable[Fact] = ()) -> frozenset[Fact]:
    """Every fact that `text` claims.

    Args:
        text: an answer, free text.
        known: facts to look for by their value, for kinds that free text does not mark: people's
            names, and items of which the noun is not in the word list.
    """
    found = {_fact(match) for match in _SCANNER.finditer(text)}
    found |= {fact for fact in known if fact.value in text}
    return frozenset(found)


def judge(text: str, required: frozenset[Fact], allowed: frozenset[Fact]) -> bool:
    """True if `text` claims all `required` facts and none outside `required | allowed`."""
    known = [fact for fact in required | allowed if fact.kind in ("name", "item")]
    claimed = parse(text, known)
    return required <= claimed and claimed <= (required | allowed)
