"""From float matrices to integers and scales: pure functions.

Round to nearest, symmetric. The scale of each row or group is the one of a small grid below the
largest value that loses least (mean squared error), as LLM quantizers commonly clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

_SHRINKS: Final = tuple(1 - 0.04 * step for step in range(11))


@dataclass(frozen=True, slots=True)
class Quantized:
    """`values` (out, in) int8 in -2^(bits-1) .. 2^(bits-1) - 1; `scales` (out, in / group)."""

    values: torch.Tensor
    scales: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        """The float32 matrix (out, in) that the integers stand for."""
        group = self.values.shape[1] // self.scales.shape[1]
        return self.values.float() * self.scales.float().repeat_interleave(group, dim=1)


def quantize_matrix(weight: torch.Tensor, bits: int, group: int | None = None) -> Quantized:
    """Quantizes (out, in) with one scale per output row, or per `group` inputs of it.

    Raises:
        ValueError: `group` does not divide the inputs.
    """
    rows, columns = weight.shape
    size = group or columns
    if columns % size:
        raise ValueError(f"groups of {size} do not divide {columns} inputs")
    parts = weight.float().reshape(rows, columns // size, size)
    limit = 2 ** (bits - 1) - 1
    largest = parts.abs().amax(dim=-1, keepdim=True).clamp_min(1e-9) / limit
    best = torch.full_like(largest, torch.inf)
    scales = largest
    for shrink in _SHRINKS:
        # In the precision it is stored in: the integers must fit the scale that is read back.
        tried = (largest * shrink).to(weight.dtype).float()
        rounded = (parts / tried).round().clamp(-limit - 1, limit) * tried
        error = (rounded - parts).square().sum(dim=-1, keepdim=True)
        scales = torch.where(error < best, tried, scales)
        best = torch.minimum(error, best)
    values = (parts / scales).round().clamp(-limit - 1, limit).to(torch.int8)
    return Quantized(values.reshape(rows, columns), scales.squeeze(-1).to(weight.dtype))


def pack_int32(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers (out, in) as unsigned fields of int32 words (out, in x bits / 32), lowest first.

    This is compressed-tensors' `pack-quantized` layout: each value is shifted up by 2^(bits-1).
    """
    factor = 32 // bits
    fields = (values.to(torch.int64) + 2 ** (bits - 1)).reshape(values.shape[0], -1, factor)
    words = (fields << (torch.arange(factor) * bits)).sum(dim=-1)
    # To the signed word with the same bits.
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_int32(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse of `pack_int32`: int8 values (out, in)."""
    mask = 2**bits - 1
    unsigned = words.to(torch.int64) & (2**32 - 1)
    fields = (unsigned.unsqueeze(-1) >> (torch.arange(32 // bits) * bits)) & mask
    return (fields - 2 ** (bits - 1)).to(torch.int8).flatten(1)
