"""Seeded prompts of a wanted length, and the request bodies around them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WORDS = (
    "order parcel invoice refund address delivery warehouse customer voucher return label size "
    "colour jacket kettle lamp tracking courier Monday Friday morning evening street number "
    "please check again whether the my a this still not arrived damaged missing late wrong box "
    "could you tell me when it will be sent and how much was charged for express shipping"
)


def prompt_texts(
    seed: int, count: int, tokens: int, count_tokens: Callable[[str], int]
) -> list[str]:
    """``count`` texts of at most ``tokens`` tokens each (and at most one word fewer).

    No two share their first words, so a server's prefix cache helps none of them.
    """
    rng = random.Random(seed)
    known = WORDS.split()
    texts = []
    for number in range(count):
        words = [f"{rng.randrange(10**8):08d}", str(number)]
        while count_tokens(" ".join(words)) < tokens:
            missing = tokens - count_tokens(" ".join(words))
            words += rng.choices(known, k=max(1, missing // 3))
        while count_tokens(" ".join(words)) > tokens and len(words) > 2:
            words.pop()
        texts.append(" ".join(words))
    return texts


def chat_bodies(
    model: str, texts: Sequence[str], output_tokens: int, more: Mapping[str, Any] | None = None
) -> list[bytes]:
    """One JSON body for ``/v1/chat/completions`` a text: greedy, streamed, exactly
    ``output_tokens`` tokens (by fields that vLLM added to OpenAI's), usage at the end. ``more``:
    further fields of each body."""
    return [
        json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": output_tokens,
                "min_tokens": output_tokens,
                "ignore_eos": True,
                # What comes after the end token must be text too: some servers send no chunk
                # for a token without text, and would have less to do than others.
                "skip_special_tokens": False,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **(more or {}),
            }
        ).encode()
        for text in texts
    ]
