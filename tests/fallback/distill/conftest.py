"""A tiny pair of models that has nothing to do with weir's own: GPT-2 with words as tokens."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = ["the", "a", "cat", "dog", "sees", "likes", "small", "big", "and", "house"]


@dataclass(frozen=True)
class Pair:
    teacher: Path
    student_config: Path
    data: Path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Threads that wait for each other are slow wherever something else runs too.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    vocabulary = {word: number for number, word in enumerate(["<end>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", unk_token="<unk>", pad_token="<end>"
    )
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=64, n_embd=64, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    teacher = folder / "teacher"
    GPT2LMHeadModel(config).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    student = folder / "student.json"
    student.write_text(json.dumps({"n_embd": 16, "n_layer": 1, "n_head": 2}))
    rng = random.Random(1)
    lines = [{"text": " ".join(rng.choices(WORDS, k=rng.randint(4, 20)))} for _ in range(40)]
    lines += [{"prompt": "the cat", "completion": "sees a dog"}]
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps(line) for line in lines))
    return Pair(teacher, student, data)
