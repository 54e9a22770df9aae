"""Held-out evaluation: greedy answers, judged by the desk's checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from weir import samples


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers out of asked ones."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1; 0 if none was asked."""
        return self.right / self.asked if self.asked else 0.0


def answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[samples.Example],
    max_new_tokens: int = 64,
    batch_size: int = 32,
) -> list[str]:
    """Greedy answers through the chat template, in the order of `examples`."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(examples), batch_size):
        talks = [list(example.messages) for example in examples[start : start + batch_size]]
        inputs = tokenizer.apply_chat_template(
            talks,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=False,
            )
        fresh = output[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return answers


def score(examples: Iterable[samples.Example], answers: Iterable[str]) -> dict[str, Score]:
    """Scores by intent, and by group under the names `common` and `rare`."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for example, text in zip(examples, answers, strict=True):
        ok = samples.check(example, text)
        for name in (example.intent, example.group):
            asked[name] += 1
            right[name] += ok
    return {name: Score(right[name], asked[name]) for name in asked}
