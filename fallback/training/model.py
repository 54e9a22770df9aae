"""The teacher's shape: a small Llama with tied embeddings, built to load anywhere Llama does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from fallback.training.tokenization import BOS, END, PAD


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model. Two key-value heads, so that tensor parallelism can split it in two."""

    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 704
    max_positions: int = 2048
    rope_theta: float = 1e6


def build(shape: Shape, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A fresh float32 model with seeded weights."""
    torch.manual_seed(seed)
    ids = {name: tokenizer.token_to_id(name) for name in (BOS, END, PAD)}
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=ids[BOS],
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids[BOS], eos_token_id=ids[END], pad_token_id=ids[PAD], do_sample=False
    )
    return model


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
