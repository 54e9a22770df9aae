"""How much arithmetic a model is, how much this machine can do, and the share that was used.

MFU and HFU as PaLM defines them (Chowdhery et al. 2022, appendix B): the FLOPs that the model
needs for the tokens it was given, and the FLOPs that were executed, over what the hardware could
have done in the time. FLOPs: 2 per weight of a matrix and token, attention's 4 per token pair and
width of a query (half of the pairs, being causal, for MFU); backward is twice forward.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What one token costs. `trunk` and `head` FLOPs per token; `pair` per attended token."""

    trunk: float
    head: float
    pair: float

    def forward(self, tokens: float, head_tokens: float, context: float) -> float:
        """FLOPs of `tokens` that attend to `context` tokens each, logits at `head_tokens`."""
        return tokens * (self.trunk + context * self.pair) + head_tokens * self.head


def arithmetic(model: PreTrainedModel) -> Arithmetic:
    """Counted from the model's matrices; a mixture of experts would be overcounted."""
    head = model.get_output_embeddings()
    trunk = 0
    for module in model.base_model.modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            trunk += 2 * module.weight.numel()
    config = model.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    output = 0 if head is None else 2 * head.weight.numel()
    return Arithmetic(trunk, output, 4.0 * config.num_hidden_layers * heads * size)


@dataclass(frozen=True, slots=True)
class Peak:
    """What this machine's matrix unit did in the probe, FLOP/s of all workers together."""

    flops_per_s: float
    how: str


def probe_peak(threads: int, dtype: torch.dtype = torch.bfloat16, seconds: float = 0.6) -> Peak:
    """The best rate of square matrix products of 1024 by `threads` threads, over `seconds`."""
    size, best = 1024, 0.0
    before = torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    try:
        torch.set_num_threads(threads)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            started = time.perf_counter()
            for _ in range(4):
                left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 4 * 2 * size**3 / (time.perf_counter() - started))
    finally:
        torch.set_num_threads(before)
    name = str(dtype).removeprefix("torch.")
    how = f"best of repeated {size} x {size} {name} matrix products, {threads} {device} threads"
    return Peak(best, how)


@dataclass(slots=True)
class Work:
    """FLOPs so far: `needed` by the model and the method, and `executed` with padding."""

    needed: float = 0.0
    executed: float = 0.0

    def add_step(
        self,
        student: Arithmetic,
        teacher: Arithmetic | None,
        tokens: tuple[int, int],
        head_tokens: int,
        length: int,
    ) -> None:
        """One step: student forward and backward, teacher forward if it was asked.

        Args:
            tokens: real ones, and with padding.
            length: of the padded rows.
        """
        real, padded = tokens
        for each, passes in ((student, 3), (teacher, 1)):
            if each is not None:
                self.needed += passes * each.forward(real, head_tokens, length / 2)
                self.executed += passes * each.forward(padded, head_tokens, length)

    def add_generation(self, model: Arithmetic, prompts: int, new: int, length: float) -> None:
        """Sampling: prompt and new tokens forward once, logits for the new ones."""
        flops = model.forward(prompts + new, new, length / 2)
        self.needed += flops
        self.executed += flops
