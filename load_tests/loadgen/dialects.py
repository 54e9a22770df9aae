"""The dialects that the load is spoken in: where a request goes, what it is, how its answer is
read. All ask for exactly so many tokens, streamed, greedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from load_tests.loadgen.prompts import chat_bodies
from load_tests.loadgen.sample import CHAT_SHAPE, MESSAGES_SHAPE, RESPONSES_SHAPE, Shape

Bodies = Callable[[str, Sequence[str], int, Mapping[str, Any] | None], list[bytes]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """``bodies`` makes one body a text, of model, texts, output tokens and further fields."""

    path: str
    bodies: Bodies
    shape: Shape


def response_bodies(
    model: str, texts: Sequence[str], output_tokens: int, more: Mapping[str, Any] | None = None
) -> list[bytes]:
    """For ``/v1/responses``; like OpenAI's own clients, it has each response kept."""
    fields = {
        "model": model,
        "max_output_tokens": output_tokens,
        **_exactly(output_tokens),
        "skip_special_tokens": False,
        "stream": True,
        **(more or {}),
    }
    return [json.dumps({**fields, "input": text}).encode() for text in texts]


def message_bodies(
    model: str, texts: Sequence[str], output_tokens: int, more: Mapping[str, Any] | None = None
) -> list[bytes]:
    """For ``/v1/messages``."""
    fields = {
        "model": model,
        "max_tokens": output_tokens,
        **_exactly(output_tokens),
        "skip_special_tokens": False,
        "stream": True,
        **(more or {}),
    }
    return [
        json.dumps({**fields, "messages": [{"role": "user", "content": text}]}).encode()
        for text in texts
    ]


def _exactly(output_tokens: int) -> dict[str, Any]:
    return {"min_tokens": output_tokens, "ignore_eos": True, "temperature": 0}


CHAT = Dialect("/v1/chat/completions", chat_bodies, CHAT_SHAPE)
RESPONSES = Dialect("/v1/responses", response_bodies, RESPONSES_SHAPE)
MESSAGES = Dialect("/v1/messages", message_bodies, MESSAGES_SHAPE)
