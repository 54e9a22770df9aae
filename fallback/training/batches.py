"""Batches of conversations: token ids and loss weights, bucketed by length.

One batch holds about the same number of tokens whatever the conversations' lengths; padding is on
the right, where a causal model without an attention mask cannot see it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from tokenizers import Tokenizer

from fallback.training import tokenization
from fallback.training.tokenization import BOS, END, PAD
from weir import desk

CONTEXT_SHARE: Final = 0.2
CONTEXT_WEIGHT: Final = 0.5
POOL: Final = 256
"""Conversations sorted by length together."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` (rows, length) int64; `weights` (rows, length) float32, the loss weight of each id.

    `pool` numbers the pool of conversations that the batch comes from.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    pool: int

    @property
    def tokens(self) -> int:
        """Tokens processed, padding included."""
        return int(self.ids.numel())


Row = tuple[list[int], list[float]]


def encode(tokenizer: Tokenizer, talk: desk.Conversation, rng: random.Random) -> Row:
    """Token ids and loss weights of one conversation, laid out as the chat template does.

    Answers weigh 1. Of the other tokens a random share weighs a little: enough to learn the
    language of the prompt, and the output layer need not be computed for the rest.
    """
    end, bos = tokenization.id_of(tokenizer, END), tokenization.id_of(tokenizer, BOS)
    ids, weights = [bos], [0.0]
    for message in talk.messages():
        text = tokenizer.encode(message["content"], add_special_tokens=False).ids
        answer = message["role"] == "assistant"
        ids += [tokenization.id_of(tokenizer, f"<|{message['role']}|>"), *text, end]
        if answer:
            weights += [0.0, *[1.0] * (len(text) + 1)]
        else:
            drawn = (rng.random() < CONTEXT_SHARE for _ in text)
            weights += [0.0, *(CONTEXT_WEIGHT if take else 0.0 for take in drawn), 0.0]
    return ids, weights


def _pad(rows: list[Row], pad: int, pool: int) -> Batch:
    length = max(len(ids) for ids, _ in rows)
    return Batch(
        ids=torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows]),
        weights=torch.tensor([weights + [0.0] * (length - len(weights)) for _, weights in rows]),
        pool=pool,
    )


def batches(
    tokenizer: Tokenizer, seed: int, max_tokens: int, pool: int = 0, stride: int = 1
) -> Iterator[Batch]:
    """An endless, seeded stream of batches.

    Args:
        max_tokens: upper bound of rows times length.
        pool: the pool to start from.
        stride: takes every `stride`-th pool; workers with different starts share the corpus so.
    """
    pad = tokenization.id_of(tokenizer, PAD)
    for number in itertools.count(pool, stride):
        talks = desk.conversations(seed, start=number * POOL)
        rng = random.Random(f"pool/{seed}/{number}")
        rows = [encode(tokenizer, talk, rng) for talk in itertools.islice(talks, POOL)]
        rows.sort(key=lambda row: len(row[0]))
        made: list[Batch] = []
        chunk: list[Row] = []
        for row in rows:
            if chunk and len(row[0]) * (len(chunk) + 1) > max_tokens:
                made.append(_pad(chunk, pad, number))
                chunk = []
            chunk.append(row)
        made.append(_pad(chunk, pad, number))
        rng.shuffle(made)
        yield from made
