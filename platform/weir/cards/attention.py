"""What a layer keeps of the past: one row of this table per kind of attention.

``mha`` and ``gqa`` keep a key and a value per KV head and token, ``mla`` one compressed vector per
token (DeepSeek-V2, arXiv:2405.04434), ``window`` the same as gqa but only for the newest tokens,
``state`` (linear attention, Mamba) a fixed amount per request, however long it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["mha", "gqa", "mla", "window", "state"]

_WINDOWED = {"sliding_attention", "chunked_attention", "local_attention"}
_STATEFUL = {"linear_attention", "mamba", "mamba2", "recurrent", "conv"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's attention.

    ``elements_per_token``: numbers kept per token. ``window_tokens``: how many of the newest tokens
    are kept (0: all). ``state_elements``: numbers kept per request. ``flops_per_pair``: floating
    point operations for one new token to attend to one earlier one, over all heads.
    """

    kind: Kind
    elements_per_token: int = 0
    window_tokens: int = 0
    state_elements: int = 0
    flops_per_pair: int = 0

    def kept_tokens(self, context_tokens: int) -> int:
        """How many of ``context_tokens`` this layer still holds."""
        if self.kind == "state":
            return 0
        return min(context_tokens, self.window_tokens) if self.window_tokens else context_tokens

    def pairs(self, new_tokens: int, cached_tokens: int) -> int:
        """Token pairs that are attended when ``new_tokens`` follow ``cached_tokens``."""
        first, last = cached_tokens + 1, cached_tokens + new_tokens
        limit = self.window_tokens or last
        within = max(0, min(last, limit) - first + 1)
        growing = within * (2 * first + within - 1) // 2
        return growing + (new_tokens - within) * limit


def read_layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of a text model's configuration, in order."""
    kinds = _layer_types(config)
    whole = _whole_context(config)
    window = _window(config, whole)
    state = Layer("state", state_elements=_state_elements(config))
    rows = {"full": whole, "window": window, "state": state}
    return tuple(rows[kind] for kind in kinds)


def head_size(config: Mapping[str, Any]) -> int:
    """Numbers in one attention head."""
    given = config.get("head_dim")
    return int(given or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def kv_heads(config: Mapping[str, Any]) -> int:
    """Key and value heads of a layer; a config that does not say has one for each query head."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def is_mla(config: Mapping[str, Any]) -> bool:
    """Whether keys and values are kept as one compressed vector."""
    return bool(config.get("kv_lora_rank"))


def _whole_context(config: Mapping[str, Any]) -> Layer:
    heads = int(config["num_attention_heads"])
    if is_mla(config):
        rope = int(config["qk_rope_head_dim"])
        key = int(config["qk_nope_head_dim"]) + rope
        pair = 2 * heads * (key + int(config["v_head_dim"]))
        return Layer("mla", int(config["kv_lora_rank"]) + rope, flops_per_pair=pair)
    kind: Kind = "mha" if kv_heads(config) == heads else "gqa"
    size = head_size(config)
    return Layer(kind, 2 * kv_heads(config) * size, flops_per_pair=4 * heads * size)


def _window(config: Mapping[str, Any], whole: Layer) -> Layer:
    window = int(config.get("sliding_window") or config.get("attention_chunk_size") or 0)
    if not window:
        return whole
    return Layer("window", whole.elements_per_token, window, flops_per_pair=whole.flops_per_pair)


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    count = int(config["num_hidden_layers"])
    if given := config.get("layer_types"):
        return [_simplified(str(kind)) for kind in given]
    if interval := config.get("full_attention_interval"):
        return ["full" if (n + 1) % int(interval) == 0 else "state" for n in range(count)]
    windowed = bool(config.get("sliding_window")) and config.get("use_sliding_window", True)
    if not windowed:
        return ["full"] * count
    family = str(config.get("model_type", ""))
    if family.startswith("gemma2"):
        return ["full" if n % 2 else "window" for n in range(count)]
    if pattern := _pattern(config, family):
        return ["full" if (n + 1) % pattern == 0 else "window" for n in range(count)]
    first = int(config.get("max_window_layers") or 0) if family.startswith("qwen") else 0
    return ["full" if n < first else "window" for n in range(count)]


def _pattern(config: Mapping[str, Any], family: str) -> int:
    """Every so many layers one sees the whole context (Gemma 3: six)."""
    usual = 6 if family.startswith("gemma3") else 0
    return int(config.get("sliding_window_pattern") or usual)


def _simplified(kind: str) -> str:
    if kind in _WINDOWED:
        return "window"
    return "state" if kind in _STATEFUL else "full"


def _state_elements(config: Mapping[str, Any]) -> int:
    """Recurrent state and convolution state of gated delta nets (Qwen3-Next) or Mamba 2."""
    if "linear_num_value_heads" in config:
        keys = int(config["linear_key_head_dim"])
        value_heads = int(config["linear_num_value_heads"])
        values = int(config["linear_value_head_dim"])
        mixed = 2 * int(config["linear_num_key_heads"]) * keys + value_heads * values
        kept = int(config.get("linear_conv_kernel_dim", 4)) - 1
        return value_heads * keys * values + mixed * kept
    if "mamba_n_heads" in config:
        inner = int(config["mamba_n_heads"]) * int(config["mamba_d_head"])
        state = int(config["mamba_d_state"])
        mixed = inner + 2 * int(config.get("mamba_n_groups", 1)) * state
        return inner * state + mixed * (int(config.get("mamba_d_conv", 4)) - 1)
    return 0
