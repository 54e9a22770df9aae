"""What is right: what the stub engine makes of a request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from deployments import wire
from deployments.stub_generator import (
    STRUCTURED_TOKENS,
    rendered_prompt,
    stub_answer,
    stub_score,
    stub_vector,
)
from deployments.testing.kinds.kind import Said


def _words(request: wire.Submit, count: int | None = None) -> str:
    prompt = request.prompt or rendered_prompt(request.messages)
    count = count or request.sampling.max_tokens
    return stub_answer(prompt, count, request.sampling.seed, request.adapter)


def right_text(request: wire.Submit, prompt: str) -> Said:
    """The engine's words."""
    return Said(_words(request), (), "length")


def right_scored(request: wire.Submit, prompt: str) -> Said:
    """The engine's words, each with a log-probability."""
    text = _words(request)
    return Said(text, (), "length", _split(text))


def right_echo(request: wire.Submit, prompt: str) -> Said:
    """The prompt, then the engine's words."""
    return Said(prompt + _words(request), (), "length")


def right_object(request: wire.Submit, prompt: str) -> Said:
    """A JSON object."""
    return Said(_object(request), (), "stop")


def right_call(request: wire.Submit, prompt: str) -> Said:
    """A call of the first tool."""
    assert request.chat is not None
    named = isinstance(request.chat["tool_choice"], dict)
    call = ("weather", _object(request))
    return Said("", (call,), "stop" if named else "tool_calls")


def right_use(request: wire.Submit, prompt: str) -> Said:
    """The same, whether or not it was the only tool allowed."""
    return replace(right_call(request, prompt), finish_reason="tool_calls")


def right_vector(request: wire.Embed, prompt: str) -> Said:
    """Nothing is known of a vector but that it has length 1; see :func:`agrees`."""
    return Said(vector=(1.0,))


def right_score(request: wire.Embed, prompt: str) -> Said:
    """The engine's score of a pair."""
    assert request.pair is not None
    return Said(score=stub_score(request.prompt))


def right_cosines(asked: Sequence[wire.Embed]) -> list[Said]:
    """The cosine of each text's embedding with the first one's."""
    query, *others = [stub_vector(request.prompt) for request in asked]
    return [
        Said(score=sum(a * b for a, b in zip(query, other, strict=True)) / _length(query, other))
        for other in others
    ]


def _length(one: Sequence[float], other: Sequence[float]) -> float:
    return math.hypot(*one) * math.hypot(*other)


def _object(request: wire.Submit) -> str:
    count = min(request.sampling.max_tokens, STRUCTURED_TOKENS)
    return '{"words": "' + _words(request, count) + '"}'


def _split(text: str) -> tuple[str, ...]:
    return tuple(f"{word} " for word in text.split())
