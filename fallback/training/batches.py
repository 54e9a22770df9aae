"""Batches of conversations: token ids and loss weights, bucketed by length.

One batch holds about the same number of tokens whatever the conversations' lengths; padding is on
the right, where a causal model without an attention mask cannot see it. Lengths are rounded up, so
that few different shapes reach the kernels, which keep code and memory for each.

Training opens with drills: chunks of random tokens that come again and again. They settle the
copying circuit that the model starts with. Conversations with short prompts follow, in which there
is less to look at, then the whole ones.
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
from weir import samples

CONTEXT_SHARE: Final = 0.1
CONTEXT_WEIGHT: Final = 0.5
POOL: Final = 256
"""Conversations sorted by length together."""
ROUND: Final = 32
"""Lengths are padded to multiples of this many tokens."""
DRILL_POOLS: Final = 2
"""The first pools hold drills."""
EASY_POOLS: Final = 26
"""The next pools, up to this number, hold conversations with short prompts."""
MIXED_DRILLS: Final = 64
"""Drills in every later pool: a habit that is not kept up is lost."""


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


def encode(tokenizer: Tokenizer, talk: samples.Conversation, rng: random.Random) -> Row:
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


def _chunk(rng: random.Random, digits: list[int], words: range) -> list[int]:
    """Random words, or a word and a number after it: what names and ids look like."""
    if rng.random() < 0.5:
        return [rng.choice(words), *(rng.choice(digits) for _ in range(rng.randint(2, 5)))]
    return [rng.choice(words) for _ in range(rng.randint(2, 5))]


def drill(tokenizer: Tokenizer, rng: random.Random, length: int = 127) -> Row:
    """A few random chunks of tokens, again and again in random order; repeats weigh 1.

    The order is random so that only the tokens before tell how a chunk goes on: with chunks at
    regular distances a model learns the distances.
    """
    words = range(len(tokenization.SPECIAL), tokenizer.get_vocab_size())
    digits = [tokenization.id_of(tokenizer, digit) for digit in "0123456789"]
    chunks = [_chunk(rng, digits, words) for _ in range(rng.randint(3, 10))]
    ids, weights = [tokenization.id_of(tokenizer, BOS)], [0.0]
    seen: set[int] = set()
    while len(ids) < length:
        number = rng.randrange(len(chunks))
        ids += chunks[number]
        weights += [0.0, *[1.0 if number in seen else 0.0] * (len(chunks[number]) - 1)]
        seen.add(number)
    return ids[:length], weights[:length]


def _rows(tokenizer: Tokenizer, seed: int, pool: int, rng: random.Random) -> list[Row]:
    if pool < DRILL_POOLS:
        return [drill(tokenizer, rng) for _ in range(2 * POOL)]
    stream = samples.conversations(seed, start=pool * POOL, easy=pool < EASY_POOLS)
    rows = [encode(tokenizer, talk, rng) for talk in itertools.islice(stream, POOL)]
    rows += [drill(tokenizer, rng) for _ in range(MIXED_DRILLS)]
    return sorted(rows, key=lambda row: len(row[0]))


def _round_up(length: int) -> int:
    return -(-length // ROUND) * ROUND


def _pad(rows: list[Row], pad: int, pool: int) -> Batch:
    length = _round_up(max(len(ids) for ids, _ in rows))
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
        rng = random.Random(f"pool/{seed}/{number}")
        made: list[Batch] = []
        chunk: list[Row] = []
        for row in _rows(tokenizer, seed, number, rng):
            if chunk and _round_up(len(row[0])) * (len(chunk) + 1) > max_tokens:
                made.append(_pad(chunk, pad, number))
                chunk = []
            chunk.append(row)
        rng.shuffle(made)  # what is left in `chunk` is too few rows for a batch, and is dropped
        yield from made
