"""What writes features: the boundary between the job and a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from features.generation.prompts import Prompt
from weir.errors import WeirError


class WriterError(WeirError):
    """The model behind a writer cannot be reached or refuses the work."""

    code = "generation_failed"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model writes: its name, and a hash of its files (or why there is none)."""

    model_id: str
    checkpoint_sha256: str


@dataclass(frozen=True, slots=True)
class Written:
    """The model's answer to one prompt, and the tokens that were paid for it."""

    text: str
    prompt_tokens: int
    output_tokens: int


class Writer(Protocol):
    """Answers prompts with JSON that fits :data:`features.generation.output.OUTPUT_SCHEMA`."""

    def bound(self, prompt: Prompt) -> int:
        """Tokens that the prompt may cost at most, prompt and answer."""

    def write(self, prompts: Sequence[Prompt], done: Callable[[int, Written], None]) -> None:
        """Answer all prompts; ``done(index, answer)`` as soon as each of them is there.

        Raises:
            WriterError: the rest cannot be answered.
        """


class WriterFactory(Protocol):
    """Makes a writer in the process that will use it. Sent to other processes: picklable."""

    def identity(self) -> ModelIdentity:
        """Known before any engine is started."""

    def gpus(self) -> int:
        """GPUs that each writer needs."""

    def __call__(self) -> Writer:
        """Start what has to be started."""
