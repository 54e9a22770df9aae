"""Starts a fresh model with the circuit that copies, instead of waiting for it to emerge.

A transformer learns to copy from its context by an induction circuit: a head in one layer notes at
each place which token came before, and a head in the next looks for the place that came after the
token it is at, and repeats it (Olsson et al., "In-context learning and induction heads", 2022).
Gradient descent finds it after a long plateau, too long for a small machine. Here the weights
start as that circuit, in a few of the heads; training goes on from there and may change all of it.

The residual stream is laid out at the start as: `CONST` dimensions of the same value for every
token, the tokens' own random code, and two slots for codes of the one and two tokens before.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from transformers import LlamaForCausalLM

CONST: Final = 8
"""Leading dimensions that are the same for all tokens; positional heads read them."""
CODE: Final = 32
"""Dimensions of a token's code in a slot, and of the slowly rotating part of a head."""
_TOKEN_NORM: Final = 0.8
_CONST_VALUE: Final = 0.1
_SLOT_NORM: Final = 0.5
_MATCH_LOGIT: Final = 14.0
_FAST_PAIRS: Final = 6
_FAST_ENERGY: Final = 40.0


def _random(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)


def _turned(vector: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """A head vector (2 n,) with pairs (i, i + n) turned by `angles` (n,), as Llama's RoPE does."""
    first, second = vector.chunk(2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin))


def _note_previous(
    model: LlamaForCausalLM, code: torch.Tensor, slots: tuple[slice, slice], theta: float
) -> None:
    """Layer 0: query heads 0 and 1 look one and two places back and write what they see."""
    config, attention = model.config, model.model.layers[0].self_attn
    size, own = config.head_dim, slice(CONST, slots[0].start)
    norm = (
        16
        / math.sqrt(_TOKEN_NORM**2 + CONST * _CONST_VALUE**2)
        * math.sqrt(config.hidden_size / 256)
    )
    half = size // 2
    key = torch.zeros(size)
    key[:_FAST_PAIRS] = math.sqrt(_FAST_ENERGY)
    rates = theta ** (-torch.arange(half) / half)
    spread = 1 / (CONST * _CONST_VALUE * norm)
    attention.k_proj.weight[:size] = 0
    attention.k_proj.weight[:size, :CONST] = key[:, None] * spread
    attention.v_proj.weight[:size] = 0
    attention.v_proj.weight[:CODE, own] = code
    gain = _SLOT_NORM / (norm * _TOKEN_NORM * math.sqrt(CODE / code.shape[1]))
    for head, slot in enumerate(slots):
        rows = slice(head * size, (head + 1) * size)
        attention.q_proj.weight[rows] = 0
        query = _turned(key, -rates * (head + 1))
        attention.q_proj.weight[rows, :CONST] = query[:, None] * spread
        attention.o_proj.weight[:, rows] = 0
        attention.o_proj.weight[slot, rows.start : rows.start + CODE] = gain * torch.eye(CODE)


def _repeat_what_followed(
    model: LlamaForCausalLM,
    code: torch.Tensor,
    slots: tuple[slice, slice],
    generator: torch.Generator,
) -> None:
    """Layer 1: the first head of each key-value group finds what followed the current token.

    The second group matches the token before as well, and so tells numbers apart.
    """
    config, attention = model.config, model.model.layers[1].self_attn
    size, own = config.head_dim, slice(CONST, slots[0].start)
    half, quarter = size // 2, CODE // 2
    slow = torch.cat((torch.arange(half - quarter, half), torch.arange(size - quarter, size)))
    residual = math.sqrt(_TOKEN_NORM**2 + CONST * _CONST_VALUE**2 + 2 * _SLOT_NORM**2)
    norm = math.sqrt(config.hidden_size) / residual
    code_norm = norm * _TOKEN_NORM * math.sqrt(CODE / code.shape[1])
    gain = math.sqrt(_MATCH_LOGIT * math.sqrt(size) / (code_norm * norm * _SLOT_NORM))
    mixer = torch.linalg.qr(torch.randn(CODE, CODE, generator=generator)).Q
    group = config.num_attention_heads // config.num_key_value_heads
    for number in range(2):
        keys = slice(number * size, (number + 1) * size)
        queries = slice(number * group * size, (number * group + 1) * size)
        key, query = torch.zeros(2, size, config.hidden_size)
        key[slow, slots[0]] = gain * torch.eye(CODE)
        query[slow, own] = gain * code
        if number == 1:
            key[slow, slots[1]] = gain * mixer
            # A slot holds its code at another length than the token's own.
            query[slow, slots[0]] = gain * mixer * code_norm / (norm * _SLOT_NORM)
        attention.k_proj.weight[keys] = key
        attention.q_proj.weight[queries] = query
        look = _random(size, own.stop - own.start, generator)
        attention.v_proj.weight[keys] = 0
        attention.v_proj.weight[keys, own] = look
        attention.o_proj.weight[:, queries] = 0
        share = size / look.shape[1] * norm * _TOKEN_NORM
        attention.o_proj.weight[own, queries] = look.T * (_TOKEN_NORM / share)


def seed_copying(model: LlamaForCausalLM, seed: int) -> None:
    """Writes the copying circuit into a freshly built model, in place.

    Needs two layers, two key-value heads and heads of at least 32. Everything outside the heads
    used keeps its random start.
    """
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        width = model.config.hidden_size
        slots = (slice(width - 2 * CODE, width - CODE), slice(width - CODE, width))
        own = width - 2 * CODE - CONST
        embedding = model.model.embed_tokens.weight
        embedding[:] = 0
        embedding[:, :CONST] = _CONST_VALUE
        tokens = torch.randn(embedding.shape[0], own, generator=generator)
        embedding[:, CONST : CONST + own] = tokens * (_TOKEN_NORM / math.sqrt(own))
        code = _random(CODE, own, generator)
        theta = model.config.rope_parameters["rope_theta"]
        _note_previous(model, code, slots, theta)
        _repeat_what_followed(model, code, slots, generator)
