"""What the model must write: a JSON schema for the engine's grammar, and the reading of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from features.desk_data.contacts import INTENTS
from weir.samples.words import TIERS

TONES: Final = ("neutral", "warm", "brief", "formal")
MAX_OUTPUT_TOKENS: Final = 400
SUMMARY_PATTERN: Final = (
    rf"^The customer [A-Z][a-z]{{1,15}} [A-Z][a-z]{{1,15}} is a ({'|'.join(TIERS)}) member "
    r"with [0-9]{1,4} points and [0-9]{1,2} orders?\.$"
)
"""A sentence whose form is fixed and whose facts are the model's: so that a small model cannot
ramble, and so that the facts can be checked against the features they come from."""
PROPENSITY: Final[dict[str, Any]] = {"type": "integer", "minimum": 0, "maximum": 100}
OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "pattern": SUMMARY_PATTERN},
        "intents": {
            "type": "object",
            "properties": dict.fromkeys(INTENTS, PROPENSITY),
            "required": list(INTENTS),
            "additionalProperties": False,
        },
        "tone": {"enum": list(TONES)},
    },
    "required": ["summary", "intents", "tone"],
    "additionalProperties": False,
}


class OutputError(ValueError):
    """The text is not what the schema asks for."""


@dataclass(frozen=True, slots=True)
class Output:
    """``propensities``: percent, per intent; how likely the customer's next contact is about it."""

    summary: str
    tone: str
    propensities: dict[str, int]


def parse_output(text: str) -> Output:
    """Read and check the model's text.

    The grammar makes all of this true by construction, unless the answer was cut off; another
    server than ours may not know grammars, so it is checked.

    Raises:
        OutputError: what is wrong.
    """
    try:
        value = json.loads(text)
    except ValueError:
        raise OutputError("not JSON (cut off?)") from None
    if not isinstance(value, dict) or set(value) != set(OUTPUT_SCHEMA["required"]):
        raise OutputError("not the three fields asked for")
    summary, tone, intents = value["summary"], value["tone"], value["intents"]
    if not isinstance(summary, str) or not re.match(SUMMARY_PATTERN, summary):
        raise OutputError("summary is not of the form asked for")
    if tone not in TONES:
        raise OutputError(f"tone {tone!r} is none of {', '.join(TONES)}")
    if not isinstance(intents, dict) or set(intents) != set(INTENTS):
        raise OutputError("intents are not those asked for")
    for name, percent in intents.items():
        if type(percent) is not int or not 0 <= percent <= 100:
            raise OutputError(f"intents.{name}: {percent!r} is not a whole number in 0..100")
    return Output(summary, tone, intents)
