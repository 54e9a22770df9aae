"""Answers that a model generates, batched: the teacher's for sequence-level targets, kept on disk,
and the student's own samples for on-policy distillation."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from fallback.distill.corpus import Corpus, Row, answers


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. `temperature` 0 is greedy; `batch` prompts run together."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    batch: int = 64


def generate(
    model: PreTrainedModel, prompts: Sequence[list[int]], pad_id: int, sampling: Sampling
) -> list[list[int]]:
    """What the model says after each prompt (token ids), in their order, the end token included.

    Prompts of similar length run together, left-padded, over a KV cache. A prompt that fills the
    model's context gets no answer.
    """
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    said: list[list[int]] = [[] for _ in prompts]
    ends, context = _ends(model), model.config.max_position_embeddings
    for start in range(0, len(order), sampling.batch):
        chosen = order[start : start + sampling.batch]
        width = max(len(prompts[number]) for number in chosen)
        if (room := min(sampling.max_new_tokens, context - width)) <= 0:
            break  # this prompt and all after it fill the context: nothing can be said
        gaps = [width - len(prompts[number]) for number in chosen]
        device = next(model.parameters()).device
        ids = [[*[pad_id] * g, *prompts[n]] for g, n in zip(gaps, chosen, strict=True)]
        mask = [[*[0] * gap, *[1] * (width - gap)] for gap in gaps]
        sampled = sampling.temperature > 0
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=room,
                do_sample=sampled,
                pad_token_id=pad_id,
                **({"temperature": sampling.temperature, "top_k": 0} if sampled else {}),
            )
        for number, row in zip(chosen, output[:, width:].tolist(), strict=True):
            said[number] = _cut(row, ends)
    return said


def _ends(model: PreTrainedModel) -> frozenset[int]:
    found = model.generation_config.eos_token_id
    return frozenset([found] if isinstance(found, int) else found or [])


def _cut(ids: list[int], ends: frozenset[int]) -> list[int]:
    """Up to and with the first end token."""
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return ids


def retold(
    model: PreTrainedModel, rows: Sequence[Row], pad_id: int, sampling: Sampling
) -> list[Row]:
    """The rows with each of their answers replaced by the model's own.

    Each answer is generated with the row's own text before it, and learned with weight 1; the rest
    of the row has weight 0. A row without an answer is left out.
    """
    places = [(number, span) for number, row in enumerate(rows) for span in answers(row)]
    prompts = [rows[number][0][:start] for number, (start, _) in places]
    said = iter(generate(model, prompts, pad_id, sampling))
    told: dict[int, Row] = {}
    upto: dict[int, int] = {}
    for number, (start, end) in places:
        ids, weights = told.setdefault(number, ([], []))
        between = rows[number][0][upto.get(number, 0) : start]
        answer = next(said)
        ids += [*between, *answer]
        weights += [*[0.0] * len(between), *[1.0] * len(answer)]
        upto[number] = end
    return list(told.values())


class TeacherTexts:
    """The teacher's generations on a corpus, made pool by pool and kept in `folder`.

    After `pools` of them the same texts come again.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        corpus: Corpus,
        folder: Path,
        pools: int,
        pad_id: int,
        sampling: Sampling,
    ) -> None:
        self._teacher, self._corpus, self._folder = teacher, corpus, folder
        self._pools, self._pad_id, self._sampling = pools, pad_id, sampling

    def rows(self, pool: int) -> list[Row]:
        """Rows of pool `pool`, from disk if they were generated before."""
        number = pool % self._pools
        path = self._folder / f"pool-{number}.json"
        if path.is_file():
            return [(ids, weights) for ids, weights in json.loads(path.read_text())]
        texts = self._corpus.texts(number)
        made = retold(self._teacher, texts, self._pad_id, self._sampling)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part{random.getrandbits(32)}")
        part.write_text(json.dumps(made))
        part.replace(path)
        return made

    def prepare(self, rank: int, workers: int) -> int:
        """Generates this worker's pools; returns how many."""
        mine = range(rank, self._pools, workers)
        for number in mine:
            self.rows(number)
        return len(mine)


def own_samples(
    student: PreTrainedModel,
    rows: Sequence[Row],
    pad_id: int,
    sampling: Sampling,
    rng: random.Random,
) -> list[Row]:
    """One answer of each row, sampled by the student: what on-policy distillation reads."""
    chosen = []
    for ids, weights in rows:
        if spans := answers((ids, weights)):
            start, _ = rng.choice(spans)
            chosen.append(ids[:start])
    training = student.training
    said = generate(student.eval(), chosen, pad_id, sampling)
    student.train(training)
    return [
        ([*prompt, *answer], [*[0.0] * len(prompt), *[1.0] * len(answer)])
        for prompt, answer in zip(chosen, said, strict=True)
    ]
