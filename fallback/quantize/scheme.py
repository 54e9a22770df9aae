"""The schemes that vLLM's CPU and GPU builds both load, and how a checkpoint declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from fallback.quantize.packing import pack_int32, quantize_matrix

SchemeName = Literal["w8a8", "w4a16"]
NAMES: Final[tuple[SchemeName, ...]] = ("w8a8", "w4a16")


@dataclass(frozen=True, slots=True)
class Scheme:
    """`w8a8`: int8 weights, a scale per output row, activations int8 per token as they come.

    `w4a16`: int4 weights, a scale per `group` inputs, activations as the model has them.
    """

    name: SchemeName
    group: int = 32

    @property
    def bits(self) -> int:
        """Of a weight."""
        return 8 if self.name == "w8a8" else 4

    def tensors(self, prefix: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """What replaces `prefix`.weight (out, in) in the checkpoint.

        Raises:
            ValueError: the group does not divide the inputs.
        """
        if self.name == "w8a8":
            made = quantize_matrix(weight, 8)
            return {f"{prefix}.weight": made.values, f"{prefix}.weight_scale": made.scales}
        made = quantize_matrix(weight, 4, self.group)
        return {
            f"{prefix}.weight_packed": pack_int32(made.values, 4),
            f"{prefix}.weight_scale": made.scales,
            f"{prefix}.weight_shape": torch.tensor(weight.shape),
        }

    def declaration(self, ignore: list[str]) -> dict[str, Any]:
        """`quantization_config` of the model's config.json, as compressed-tensors has it."""
        weights: dict[str, Any] = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": True,
            "dynamic": False,
            "strategy": "channel",
        }
        inputs = None
        if self.name == "w8a8":
            inputs = {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "dynamic": True,
                "strategy": "token",
            }
        else:
            weights |= {"strategy": "group", "group_size": self.group}
        return {
            "quant_method": "compressed-tensors",
            "format": "int-quantized" if self.name == "w8a8" else "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": weights,
                    "input_activations": inputs,
                    "output_activations": None,
                }
            },
            "ignore": ignore,
            "kv_cache_scheme": None,
        }
