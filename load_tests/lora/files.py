"""Random adapters of a Llama, as files: enough to change every answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK = 8
#: Of what the model's own weights do; less, and some answers stay as they are.
STRENGTH = 1.0


def write_adapters(model: Path, folder: Path, count: int, seed: int) -> list[Path]:
    """``count`` adapters of the Llama in ``model``, each in a folder below ``folder``."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    heads = int(config["num_attention_heads"]) * int(config["head_dim"])
    shapes = {"self_attn.q_proj": (heads, hidden), "mlp.down_proj": (hidden, inner)}
    made = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        tensors = {}
        for layer in range(int(config["num_hidden_layers"])):
            for name, (out, into) in shapes.items():
                at = f"base_model.model.model.layers.{layer}.{name}"
                a = rng.standard_normal((RANK, into)) / into**0.5
                tensors[f"{at}.lora_A.weight"] = a.astype(np.float32)
                b = rng.standard_normal((out, RANK)) * STRENGTH
                tensors[f"{at}.lora_B.weight"] = b.astype(np.float32)
        path = folder / f"a{number:02d}"
        path.mkdir(parents=True)
        save_file(tensors, path / "adapter_model.safetensors")
        told = {
            "peft_type": "LORA",
            "r": RANK,
            "lora_alpha": RANK,
            "bias": "none",
            "target_modules": [name.rpartition(".")[2] for name in shapes],
        }
        (path / "adapter_config.json").write_text(json.dumps(told))
        made.append(path)
    return made
