"""How many parameters a model has, by what becomes of them: read for every token or only looked up,
dense or one of several experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weir.cards.attention import Layer, head_size, is_mla, kv_heads, read_layers
from weir.errors import ConfigError

_UNGATED = {"starcoder2", "nemotron", "phi", "bert", "roberta", "xlm-roberta"}
_NORMS_PER_LAYER = {"gemma2": 4, "gemma3": 4, "gemma3_text": 4}
_HEAD_NORMS = {"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "qwen3_next"}
_BIASED_QKV = {"qwen2", "qwen2_moe"}


class CardError(ConfigError):
    """The model's configuration lacks what a card is computed from."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder's layers and parameter counts.

    ``embedding`` is looked up, not multiplied. ``head`` is the matrix of the logits (counted here
    even if it is the embedding: ``tied``). ``dense`` is what every token is multiplied with beside
    the head; ``expert`` is one expert of one layer; ``small`` are norms, biases and such.
    """

    layers: tuple[Layer, ...]
    embedding: int
    head: int
    tied: bool
    dense: int
    small: int
    expert: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_layers: int = 0

    @property
    def parameters(self) -> int:
        """All parameters; a tied head counts once."""
        own_head = 0 if self.tied else self.head
        routed = self.expert * self.experts * self.expert_layers
        return self.embedding + own_head + self.dense + self.small + routed

    @property
    def multiplied(self) -> int:
        """Parameters that one token is multiplied with, without the head."""
        return self.dense + self.expert * self.experts_per_token * self.expert_layers

    @property
    def active_parameters(self) -> int:
        """Those that one generated token takes part in: the embedding is not one of them."""
        return self.multiplied + self.small + self.head


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape in a ``config.json``; the text model of one that reads images too.

    Raises:
        CardError: a field is missing, or the model is not of a known kind.
    """
    text = text_config(config)
    try:
        return _shape(text)
    except KeyError as error:
        name = config.get("model_type") or "of unknown type"
        raise CardError(f"no card for this model ({name}): its config.json lacks {error}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CardError(f"no card for this model: its config.json is unusual ({error})") from None


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the language model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def _shape(c: Mapping[str, Any]) -> ModelShape:
    family, hidden = str(c.get("model_type", "")), int(c["hidden_size"])
    layers, table = read_layers(c), int(c["vocab_size"]) * hidden
    mixing = sum(_linear(c) if layer.kind == "state" else _attention(c) for layer in layers)
    sparse = [_is_sparse(c, n) for n in range(len(layers))]
    count = sum(sparse)
    feed = _feed_forward(c, int(c["intermediate_size"])) * (len(layers) - count)
    routed = _experts(c) if count else 0
    if count:
        feed += count * (hidden * routed + _shared(c))
    norms = _NORMS_PER_LAYER.get(family, 2) * hidden * len(layers) + hidden
    return ModelShape(
        layers=layers,
        embedding=table,
        head=table,
        tied=bool(c.get("tie_word_embeddings", family.startswith("gemma"))),
        dense=mixing + feed,
        small=norms + sum(_small(c, layer) for layer in layers) + count * _expert_biases(c),
        expert=_feed_forward(c, _expert_size(c)) if count else 0,
        experts=routed,
        experts_per_token=int(c.get("num_experts_per_tok") or 0) if count else 0,
        expert_layers=count,
    )


def _attention(c: Mapping[str, Any]) -> int:
    hidden, heads = int(c["hidden_size"]), int(c["num_attention_heads"])
    if is_mla(c):
        rank, rope = int(c["kv_lora_rank"]), int(c["qk_rope_head_dim"])
        nope, value = int(c["qk_nope_head_dim"]), int(c["v_head_dim"])
        queries = heads * (nope + rope)
        low = int(c.get("q_lora_rank") or 0)
        asked = hidden * low + low * queries if low else hidden * queries
        held = hidden * (rank + rope) + rank * heads * (nope + value)
        return asked + held + heads * value * hidden
    size = head_size(c)
    gates = 1 if c.get("model_type") == "qwen3_next" else 0
    return hidden * size * ((2 + gates) * heads + 2 * kv_heads(c))


def _linear(c: Mapping[str, Any]) -> int:
    """Projections of a layer that keeps a state: gated delta net, or Mamba 2."""
    hidden = int(c["hidden_size"])
    if "mamba_n_heads" in c:
        heads = int(c["mamba_n_heads"])
        inner = heads * int(c["mamba_d_head"])
        mixed = inner + 2 * int(c.get("mamba_n_groups", 1)) * int(c["mamba_d_state"])
        return hidden * (inner + mixed + heads) + inner * hidden
    heads = int(c["linear_num_value_heads"])
    keys = int(c["linear_num_key_heads"]) * int(c["linear_key_head_dim"])
    values = heads * int(c["linear_value_head_dim"])
    convolution = (2 * keys + values) * int(c.get("linear_conv_kernel_dim", 4))
    return hidden * (2 * keys + 2 * values + 2 * heads) + convolution + values * hidden


def _feed_forward(c: Mapping[str, Any], inner: int) -> int:
    matrices = 2 if c.get("model_type") in _UNGATED else 3
    return matrices * int(c["hidden_size"]) * inner


def _experts(c: Mapping[str, Any]) -> int:
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    return next((int(c[name]) for name in names if c.get(name)), 0)


def _expert_size(c: Mapping[str, Any]) -> int:
    return int(c.get("moe_intermediate_size") or c["intermediate_size"])


def _shared(c: Mapping[str, Any]) -> int:
    """Experts that every token goes through."""
    if size := c.get("shared_expert_intermediate_size"):
        return _feed_forward(c, int(size)) + int(c["hidden_size"])
    return _feed_forward(c, _expert_size(c) * int(c.get("n_shared_experts") or 0))


def _is_sparse(c: Mapping[str, Any], layer: int) -> bool:
    if not _experts(c) or layer < int(c.get("first_k_dense_replace") or 0):
        return False
    if layer in (c.get("mlp_only_layers") or ()):
        return False
    return (layer + 1) % int(c.get("decoder_sparse_step") or 1) == 0


def _small(c: Mapping[str, Any], layer: Layer) -> int:
    """Norms of heads and biases of one layer's attention."""
    family, hidden, heads = c.get("model_type"), int(c["hidden_size"]), c["num_attention_heads"]
    if layer.kind == "state":
        return 2 * int(c.get("linear_num_value_heads", 0)) + int(c.get("linear_value_head_dim", 0))
    if is_mla(c):
        return int(c["kv_lora_rank"]) + int(c.get("q_lora_rank") or 0)
    size = head_size(c)
    total = 2 * size if family in _HEAD_NORMS else 0
    if family in _BIASED_QKV or c.get("attention_bias"):
        total += size * (heads + 2 * kv_heads(c))
    if c.get("attention_bias"):
        total += hidden
    return total + (heads if family == "gpt_oss" else 0)  # one sink per head


def _expert_biases(c: Mapping[str, Any]) -> int:
    """Biases of the router and of the experts: gpt-oss has both, DeepSeek-V3 the router's."""
    routed, hidden = _experts(c), int(c["hidden_size"])
    if c.get("model_type") == "gpt_oss":
        return routed * (1 + 2 * _expert_size(c) + hidden)
    return routed if c.get("topk_method") == "noaux_tc" else 0
