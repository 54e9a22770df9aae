"""Greedy answers with what the model thought of each token: all that confidence is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fallback.distill.models import pad_id
from weir import samples


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and per generated token its log-probability and the entropy there, nats."""

    text: str
    log_probs: tuple[float, ...]
    entropies: tuple[float, ...]

    def mean_log_prob(self, first: int) -> float:
        """Mean over the first `first` tokens (all there are, if fewer); 0 of none."""
        held = self.log_probs[:first]
        return sum(held) / len(held) if held else 0.0

    def mean_entropy(self, first: int) -> float:
        """As `mean_log_prob`; higher is less sure."""
        held = self.entropies[:first]
        return sum(held) / len(held) if held else 0.0


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[samples.Example]
) -> list[list[int]]:
    """Prompts through the chat template."""
    texts = [
        tokenizer.apply_chat_template(
            list(example.messages), add_generation_prompt=True, tokenize=False
        )
        for example in examples
    ]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[samples.Example],
    max_new_tokens: int = 64,
    batch: int = 32,
) -> list[Answer]:
    """Answers in the order of `examples`; prompts of similar length run together."""
    prompts = prompt_ids(tokenizer, examples)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        made = _answer_batch(model, tokenizer, [prompts[n] for n in chosen], max_new_tokens)
        found.update(zip(chosen, made, strict=True))
    return [found[number] for number in range(len(prompts))]


def _answer_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[Answer]:
    width, filler = max(len(ids) for ids in prompts), pad_id(tokenizer)
    ids = torch.tensor([[*[filler] * (width - len(p)), *p] for p in prompts])
    mask = torch.tensor([[*[0] * (width - len(p)), *[1] * len(p)] for p in prompts])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=filler,
            output_logits=True,
            return_dict_in_generate=True,
        )
        fresh = output.sequences[:, width:]
        scores = torch.stack(output.logits, dim=1).float().log_softmax(dim=-1)
        chosen = scores.gather(-1, fresh.unsqueeze(-1)).squeeze(-1)
        entropies = -(scores.exp() * scores.clamp_min(-1e9)).sum(dim=-1)
    end = tokenizer.eos_token_id
    answers = []
    for row, log_probs, entropy in zip(fresh.tolist(), chosen, entropies, strict=True):
        size = row.index(end) + 1 if end in row else len(row)
        text = tokenizer.decode(row[:size], skip_special_tokens=True)
        answers.append(
            Answer(text, tuple(log_probs[:size].tolist()), tuple(entropy[:size].tolist()))
        )
    return answers
