"""Low-rank adapters in plain torch: put on a model, and written as PEFT writes them.

LoRA (Hu et al., ICLR 2022): a frozen linear layer ``W`` gets ``scale * B @ A`` beside it, with
``A`` (rank, in) random and ``B`` (out, rank) zero, so that training starts at the model itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

#: What PEFT calls a causal model's module, before its own names.
_PREFIX = "base_model.model"


@dataclass(frozen=True, slots=True)
class LoraShape:
    """``alpha / rank`` scales what the adapter adds; ``targets`` are last parts of module names."""

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")


class LoraLinear(nn.Module):  # type: ignore[misc]
    """A linear layer that is not trained, and the adapter beside it that is."""

    def __init__(self, base: nn.Linear, shape: LoraShape) -> None:
        super().__init__()
        self.base = base
        self.scale = shape.alpha / shape.rank
        self.a = nn.Parameter(torch.empty(shape.rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, shape.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        added = nn.functional.linear(nn.functional.linear(hidden, self.a), self.b)
        result: torch.Tensor = self.base(hidden) + self.scale * added
        return result


def put_on(model: nn.Module, shape: LoraShape, seed: int) -> dict[str, LoraLinear]:
    """Freeze `model` and put an adapter on each target; returns them by module name.

    Raises:
        ValueError: the model has no such module.
    """
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in shape.targets
    ]
    if not linear:
        raise ValueError(f"the model has no module called {' or '.join(shape.targets)}")
    made = {}
    for name, module in linear:
        parent, _, last = name.rpartition(".")
        made[name] = LoraLinear(module, shape)
        setattr(model.get_submodule(parent), last, made[name])
    return made


def trained(adapters: Sequence[LoraLinear]) -> list[nn.Parameter]:
    """What an optimizer should move."""
    return [parameter for adapter in adapters for parameter in (adapter.a, adapter.b)]


def save_adapter(
    out: Path, adapters: dict[str, LoraLinear], shape: LoraShape, base_name: str
) -> None:
    """Write ``adapter_model.safetensors`` (bfloat16) and ``adapter_config.json`` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, adapter in adapters.items():
        for letter, value in (("A", adapter.a), ("B", adapter.b)):
            tensors[f"{_PREFIX}.{name}.lora_{letter}.weight"] = (
                value.detach().to(torch.bfloat16).contiguous()
            )
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(shape.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
