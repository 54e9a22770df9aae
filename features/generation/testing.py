"""A writer without a model, for tests: it notes each prompt that it was paid for."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.desk_data.contacts import INTENTS
from features.generation.prompts import Prompt
from features.generation.writing import ModelIdentity, WriterError, Written

PROMPT_TOKENS, OUTPUT_TOKENS = 100, 50
_SENTENCE = re.compile(r"The customer .+ is a \w+ member with \d+ points and \d+ orders?\.")


def faithful_answer(prompt: Prompt) -> str:
    """What a good model writes: the context's own sentence."""
    found = _SENTENCE.search(prompt.system)
    summary = found.group() if found else "The customer A B is a gold member with 1 points."
    intents = dict.fromkeys(INTENTS, 10)
    return json.dumps({"summary": summary, "intents": intents, "tone": "warm"})


@dataclass(frozen=True, slots=True)
class FakeWriters:
    """``ledger`` gets a line per prompt paid for. ``answer`` writes; ``pause_s`` before each."""

    ledger: Path
    answer: Callable[[Prompt], str] = faithful_answer
    pause_s: float = 0.0
    fail_after: int | None = None
    bound_tokens: int = 200

    def identity(self) -> ModelIdentity:
        return ModelIdentity("fake", "0" * 64)

    def gpus(self) -> int:
        return 0

    def __call__(self) -> FakeWriter:
        return FakeWriter(self)

    def paid(self) -> list[str]:
        """Entities in the order in which they were paid for."""
        return self.ledger.read_text("utf-8").split() if self.ledger.exists() else []


class FakeWriter:
    """Costs 150 tokens an answer."""

    def __init__(self, writers: FakeWriters) -> None:
        self._writers = writers
        self._written = 0

    def bound(self, prompt: Prompt) -> int:
        return self._writers.bound_tokens

    def write(self, prompts: Sequence[Prompt], done: Callable[[int, Written], None]) -> None:
        for number, prompt in enumerate(prompts):
            if self._written == self._writers.fail_after:
                raise WriterError("the model is gone")
            self._written += 1
            time.sleep(self._writers.pause_s)
            with self._writers.ledger.open("a", encoding="utf-8") as ledger:
                ledger.write(f"{prompt.entity}\n")
            done(number, Written(self._writers.answer(prompt), PROMPT_TOKENS, OUTPUT_TOKENS))
