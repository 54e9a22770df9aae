"""The teacher's tokenizer: byte-level BPE with single digits, chat roles and a chat template."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weir import samples

PAD: Final = "<pad>"
BOS: Final = "<s>"
END: Final = "<|end|>"
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL: Final = (PAD, BOS, END, *ROLES)

_PIECE: Final = r"\d| ?\p{L}+(?: (?=\d))?| ?[^\s\p{L}\d]+(?: (?=\d))?|\s+"

CHAT_TEMPLATE: Final = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set role = message['role'] -%}
{%- if role == 'developer' -%}{%- set role = 'system' -%}{%- endif -%}
{%- if role not in ('system', 'user', 'assistant') -%}{%- set role = 'user' -%}{%- endif -%}
{{- '<|' + role + '|>' -}}
{%- set content = message.get('content') -%}
{%- if content is string -%}
{{- content | trim -}}
{%- elif content -%}
{%- for part in content -%}
{%- if part is string -%}{{- part -}}{%- elif part.get('text') -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""Roles it does not know read as the user's; tools are ignored; text parts are joined."""


def train_tokenizer(seed: int, vocab_size: int = 2048, n_conversations: int = 12_000) -> Tokenizer:
    """A BPE tokenizer learned from `n_conversations` training conversations.

    Digits are split one by one, so that ids and dates can be copied digit by digit. The space
    before a number belongs to the word before it: a first digit then follows a token that says
    what number it is, and not one space like all others.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    talks = itertools.islice(samples.conversations(seed), n_conversations)
    texts = (message["content"] for talk in talks for message in talk.messages())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers and vLLM load it, chat template included."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token. Raises KeyError if the tokenizer does not have it."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def load(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory`. Raises OSError if it holds none."""
    return PreTrainedTokenizerFast.from_pretrained(str(directory))
