"""From a history to a prompt. A template's hash is part of what it wrote: change one, and its
features are new ones."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template as StringTemplate
from typing import Any, Final

from features.generation.histories import History
from weir.errors import ConfigError
from weir.samples import Customer, Order, render_context

_SYSTEM_END: Final = "\n---\n"
_FIELDS: Final = {"context", "intents", "profile", "orders", "today", "tones"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Two chat messages about one entity."""

    entity: str
    system: str
    user: str

    def messages(self) -> list[dict[str, str]]:
        """In OpenAI's form."""
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.user},
        ]


@dataclass(frozen=True, slots=True)
class Template:
    """``text`` is the system message, a line ``---``, the user message; with $fields:

    ``$context`` the desk's customer block, ``$intents`` past contacts by intent in percent (JSON),
    ``$profile`` and ``$orders`` as JSON, ``$today``, ``$tones``.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        if _SYSTEM_END not in self.text:
            raise ConfigError(f"template {self.name}: no line '---' between system and user")
        unknown = set(StringTemplate(self.text).get_identifiers()) - _FIELDS
        if unknown or not StringTemplate(self.text).is_valid():
            known = ", ".join(f"${name}" for name in sorted(_FIELDS))
            raise ConfigError(f"template {self.name}: knows only {known}; a $ itself is $$")

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def prompt(self, history: History, tones: tuple[str, ...]) -> Prompt:
        """The prompt for one entity."""
        fields = {
            "context": render_context(_customer(history)),
            "intents": json.dumps(history.intent_percent()),
            "profile": json.dumps(_plain(history.profile)),
            "orders": json.dumps(list(history.orders)),
            "today": history.today.isoformat(),
            "tones": ", ".join(tones),
        }
        system, _, user = self.text.partition(_SYSTEM_END)
        return Prompt(
            history.entity,
            StringTemplate(system).substitute(fields).strip(),
            StringTemplate(user).substitute(fields).strip(),
        )


DESK = Template(
    "desk",
    """You are the support desk. Answer briefly from these facts.
$context
"intents": $intents
---
Summarise my account.
""",
)
"""For weir's own teacher, in the words that it was trained on."""
GENERAL = Template(
    "general",
    """You prepare a support desk for its next contact with a customer. Write one JSON object:
"summary": one sentence, "The customer NAME is a TIER member with N points and N orders.";
"intents": for each intent, how likely (0 to 100) the next contact is about it;
"tone": how to talk to the customer ($tones).
---
Today is $today.
Profile: $profile
Orders: $orders
Contacts of the last 90 days by intent, in percent: $intents
""",
)
BUILTIN_TEMPLATES: Final = {each.name: each for each in (DESK, GENERAL)}


def read_template(name_or_file: str) -> Template:
    """A built-in template, or one from a file.

    Raises:
        ConfigError: there is neither, or the file is no template.
    """
    if name_or_file in BUILTIN_TEMPLATES:
        return BUILTIN_TEMPLATES[name_or_file]
    file = Path(name_or_file)
    try:
        return Template(file.stem, file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(BUILTIN_TEMPLATES)
        raise ConfigError(
            f"template {name_or_file!r}: neither a built-in ({known}) nor a readable file ({error})"
        ) from None


def _customer(history: History) -> Customer:
    profile = history.profile
    return Customer(
        customer_id=history.entity,
        name=profile["name"],
        tier=profile["tier"],
        points=profile["loyalty_points"],
        today=history.today,
        orders=tuple(_order(each) for each in history.orders),
    )


def _order(order: Mapping[str, Any]) -> Order:
    brand, _, noun = str(order["item"]).partition(" ")
    return Order(
        order_id=order["id"],
        brand=brand,
        noun=noun,
        price_eur=order["price"],
        status=order["status"],
        ordered=dt.date.fromisoformat(order["placed"]),
        arrives=dt.date.fromisoformat(order["arrives"]),
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, dt.datetime)}
