"""Where text comes from: weir's own desk, a JSONL file, the teacher's generations on either.

A corpus is a function from a pool's number to rows, so that a run can stop anywhere and go on.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any, Final, Protocol

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from fallback.training.batches import MIXED_DRILLS, drill, encode
from weir import samples
from weir.errors import ConfigError
from weir.samples.render import Message

Row = tuple[list[int], list[float]]
"""Token ids, and the loss weight of each."""

POOL: Final = 256
"""Texts that are sorted by length together."""
_DRILL_POOLS: Final = 1
_EASY_POOLS: Final = 8
_OTHER: Final = 1_000_003
"""Added to the seed: texts for generation."""


class Corpus(Protocol):
    """Text by number. `fingerprint` names what the rows depend on; caches are filed under it."""

    fingerprint: str

    def rows(self, pool: int) -> list[Row]:
        """Rows of pool number `pool`, in any order."""

    def texts(self, pool: int) -> list[Row]:
        """Rows whose answers a model can be asked for; other texts than `rows` where possible."""


class DeskCorpus:
    """weir's support desk: conversations as the teacher was trained on, and copying drills.

    The first pools are drills and short prompts, as in the teacher's own training.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self.fingerprint = f"desk-{samples.CORPUS_VERSION}-{seed}"

    def rows(self, pool: int) -> list[Row]:
        """Conversations with a loss on answers and a little on prompts, and drills."""
        rng = random.Random(f"rows/{self._seed}/{pool}")
        if pool < _DRILL_POOLS:
            return [drill(self._tokenizer, rng) for _ in range(POOL)]
        easy = pool < _EASY_POOLS
        talks = samples.conversations(self._seed, start=pool * POOL, easy=easy)
        rows = [encode(self._tokenizer, talk, rng) for talk in itertools.islice(talks, POOL)]
        return [*rows, *(drill(self._tokenizer, rng) for _ in range(MIXED_DRILLS))]

    def texts(self, pool: int) -> list[Row]:
        """Whole conversations that `rows` does not have."""
        rng = random.Random(f"texts/{self._seed}/{pool}")
        talks = samples.conversations(self._seed + _OTHER, start=pool * POOL)
        return [encode(self._tokenizer, talk, rng) for talk in itertools.islice(talks, POOL)]


class JsonlCorpus:
    """A file of texts, one JSON object a line; read again, in another order, when it ends.

    A line holds ``messages`` (a chat; answers are learned), ``prompt`` and ``completion`` (the
    completion is learned), or ``text`` (all of it is).
    """

    def __init__(
        self, path: Path, tokenizer: PreTrainedTokenizerBase, seed: int, max_length: int
    ) -> None:
        self._tokenizer, self._seed, self._max_length = tokenizer, seed, max_length
        self._records = _read(path)
        self.fingerprint = f"{path.name}-{len(self._records)}-{seed}"

    def rows(self, pool: int) -> list[Row]:
        """The next `POOL` lines, over the file's end and on in the next epoch's order."""
        return [self._encode(record) for record in self._window(pool * POOL, POOL)]

    def texts(self, pool: int) -> list[Row]:
        """The same as `rows`: a file has no others."""
        return self.rows(pool)

    def _window(self, start: int, count: int) -> list[dict[str, Any]]:
        size, found = len(self._records), []
        for number in range(start, start + count):
            epoch, place = divmod(number, size)
            order = random.Random(f"order/{self._seed}/{epoch}").sample(range(size), size)
            found.append(self._records[order[place]])
        return found

    def _encode(self, record: dict[str, Any]) -> Row:
        if "messages" in record:
            ids, weights = _chat(self._tokenizer, record["messages"])
        else:
            head = self._tokenizer(record.get("prompt", ""))["input_ids"]
            text = record["completion"] if "completion" in record else record["text"]
            tail = self._tokenizer(text, add_special_tokens=not head)["input_ids"]
            end = self._tokenizer.eos_token_id
            tail = [*tail, end] if end is not None else tail
            ids, weights = [*head, *tail], [*[0.0] * len(head), *[1.0] * len(tail)]
        return ids[: self._max_length], weights[: self._max_length]


def answers(row: Row) -> list[tuple[int, int]]:
    """(start, end) of each stretch that is learned in full, the first token never in it.

    Of a row that is learned from its start, such as a plain text, the second half counts.
    """
    found: list[tuple[int, int]] = []
    for place, weight in enumerate(row[1]):
        if weight < 1.0 or place == 0:
            continue
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    half = len(row[0]) // 2
    spans = [(max(start, half) if start == 1 else start, end) for start, end in found]
    return [(start, end) for start, end in spans if start < end]


def _chat(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Row:
    """Ids of a chat by its template; what an assistant's message adds is what is learned."""
    ids: list[int] = []
    weights: list[float] = []
    for count, message in enumerate(messages, start=1):
        answer = message["role"] == "assistant"
        if answer:
            opened = _templated(tokenizer, messages[: count - 1], True)
            weights += [0.0] * (len(opened) - len(ids))
            ids = opened
        grown = _templated(tokenizer, messages[:count], False)
        weights += [1.0 if answer else 0.0] * (len(grown) - len(weights))
        ids, weights = grown, weights[: len(grown)]
    return ids, weights


def _templated(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool
) -> list[int]:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _read(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(record, dict) or not {"messages", "completion", "text"} & record.keys():
            raise ConfigError(f"{path}:{number}: needs messages, prompt and completion, or text")
        records.append(record)
    if not records:
        raise ConfigError(f"{path}: no texts in it")
    return records
