"""Bytes of weights by data type and quantization, and of the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir.cards.shape import CardError, ModelShape, text_config

#: Bytes of one number, by the names that ``config.json`` and vLLM's arguments use.
DTYPE_BYTES = {
    "float32": 4.0,
    "float": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "half": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "float8_e4m3fn": 1.0,
    "int8": 1.0,
    "int8_per_token_head": 1.0,
}


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """``name``: of the quantization, or of the data type where there is none. ``quantized_bytes``
    for a number in a quantized matrix, its share of scales included; ``plain_bytes`` for every
    other. ``experts_only``: only experts are quantized (gpt-oss)."""

    name: str
    quantized_bytes: float
    plain_bytes: float
    experts_only: bool = False

    def total_bytes(self, shape: ModelShape) -> int:
        """All weights. Embedding, head and norms are never quantized."""
        experts = shape.expert * shape.experts * shape.expert_layers
        rest = shape.parameters - shape.dense - experts
        return round(self.matrices_bytes(shape, experts) + rest * self.plain_bytes)

    def matrices_bytes(self, shape: ModelShape, expert_parameters: float) -> float:
        """The dense matrices and so many parameters of experts."""
        dense = self.plain_bytes if self.experts_only else self.quantized_bytes
        return shape.dense * dense + expert_parameters * self.quantized_bytes


def bytes_of(dtype: str) -> float:
    """Bytes of one number of ``dtype``.

    Raises:
        CardError: a name that is not known.
    """
    try:
        return DTYPE_BYTES[dtype.removeprefix("torch.")]
    except KeyError:
        known = ", ".join(DTYPE_BYTES)
        raise CardError(f"{dtype!r} is not a data type that is known ({known})") from None


def dtype_of(config: Mapping[str, Any]) -> str:
    """The data type of a config's weights; float32 where none is named, as in Hugging Face's."""
    text = text_config(config)
    named = [text.get("dtype"), text.get("torch_dtype")]
    named += [config.get("dtype"), config.get("torch_dtype")]
    return str(next((name for name in named if name), "float32")).removeprefix("torch.")


def read_format(config: Mapping[str, Any], dtype: str | None = None) -> WeightFormat:
    """How the weights are kept. ``dtype`` replaces the config's for what is not quantized."""
    plain_name = dtype or dtype_of(config)
    plain = bytes_of(plain_name)
    quantization = config.get("quantization_config") or text_config(config).get(
        "quantization_config"
    )
    if not quantization:
        return WeightFormat(plain_name, plain, plain)
    method = str(quantization.get("quant_method", ""))
    bits, group = _bits(method, quantization)
    scales = 16 / group if group > 0 else 0.0
    if method == "mxfp4":
        bits, scales = 4, 8 / 32  # one exponent byte for 32 numbers
    name = f"{method} ({bits} bits)"
    return WeightFormat(name, (bits + scales) / 8, plain, experts_only=method == "mxfp4")


def files_bytes(folder: Path) -> int | None:
    """Bytes of a folder's safetensors files; None where it has none."""
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    return sum(sizes) if sizes else None


def _bits(method: str, quantization: Mapping[str, Any]) -> tuple[int, int]:
    """Bits of a weight, and how many share a scale (0: whole rows or blocks)."""
    groups = quantization.get("config_groups")
    if isinstance(groups, Mapping) and groups:
        weights = next(iter(groups.values())).get("weights") or {}
        return int(weights.get("num_bits") or 8), int(weights.get("group_size") or 0)
    if "fp8" in method or quantization.get("load_in_8bit"):
        return 8, 0
    if quantization.get("load_in_4bit") or method == "mxfp4":
        return 4, 64
    bits = quantization.get("bits") or quantization.get("w_bit")
    if bits is None:
        raise CardError(f"no card: quantization {method!r} does not say how many bits it keeps")
    return int(bits), int(quantization.get("group_size") or quantization.get("q_group_size") or 0)
