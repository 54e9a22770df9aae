"""What a kind of request is, and what a client can say of an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments import wire

ANSWER_TOKENS = 12
#: What a model's engine can do, as its replicas tell it.
USUAL_TASKS = frozenset({"generate", "embed"})


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer, as a client put it together. ``calls``: names and arguments;
    ``scored``: the texts of the tokens with log-probabilities; ``vector``: an embedding; ``score``:
    how well two texts suit each other."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str | None = None
    scored: tuple[str, ...] = ()
    vector: tuple[float, ...] = ()
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client received: each choice, the token counts, and the error if there was one.
    ``complete``: it came to its proper end."""

    said: tuple[Said, ...] = ()
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    complete: bool = False


Asked = wire.Submit | wire.Embed
Read = Callable[[bytes, bool], Answer]
Right = Callable[[Any, str], Said]
RightAll = Callable[[Sequence[Any]], list[Said]]


@dataclass(frozen=True, slots=True)
class Kind:
    """``body`` makes the request body number *n*; bodies of different numbers share no prompt.
    ``right`` says what a choice is, from what its engine was asked and from the prompt as text;
    ``right_all`` says so of all of them, where an answer needs several. ``choices``: how many
    streams there are. ``limit_field`` bounds each answer's tokens. ``asks_usage``: fields that make
    a stream tell its token counts. ``tasks``: what the model can do. ``background``: the client is
    told at once, and asks for the answer later."""

    name: str
    path: str
    body: Callable[[int], dict[str, Any]]
    read: Read
    right: Right | None = None
    right_all: RightAll | None = None
    streams: bool = True
    choices: int = 1
    limit_field: str = "max_tokens"
    asks_usage: Mapping[str, Any] = field(
        default_factory=lambda: {"stream_options": {"include_usage": True}}
    )
    tasks: frozenset[str] = USUAL_TASKS
    background: bool = False

    def rights(self, asked: Sequence[Asked], number: int) -> list[Said]:
        """What each choice of the answer to body ``number`` should be, from what the engines were
        asked for it, in the choices' order."""
        assert len(asked) == self.choices, f"{len(asked)} streams instead of {self.choices}"
        if self.right_all is not None:
            return self.right_all(asked)
        assert self.right is not None
        prompt = self.body(number).get("prompt", "")
        listed = prompt if isinstance(prompt, list) else [prompt]
        return [
            self.right(request, str(listed[i * len(listed) // self.choices]))
            for i, request in enumerate(asked)
        ]


def agrees(said: Said, right: Said) -> bool:
    """Whether a choice is what it should be."""
    if right.vector:
        return math.isclose(sum(value * value for value in said.vector), 1.0, rel_tol=1e-6)
    if right.score is not None:
        return said.score is not None and math.isclose(said.score, right.score, abs_tol=1e-6)
    return said == right
