"""A tokenizer of a few hundred words, one token each, with a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from deployments.gateway.prompts import PromptEncoder

WORDS = ("[unk]", "user", "system", "assistant", "tool", ":", *(f"w{i}" for i in range(400)))
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def word_encoder(folder: Path) -> PromptEncoder:
    """The encoder; its files are written to ``folder``."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return PromptEncoder(folder)
