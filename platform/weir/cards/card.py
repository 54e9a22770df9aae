"""A replica's card: memory, room and work of one model with given data types.

Work is counted as in the roofline model (Williams et al., 2009): a multiplication with an addition
are two floating point operations, weights are read once per step, and activations are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir.cards.shape import CardError, ModelShape, read_shape, text_config
from weir.cards.weights import WeightFormat, bytes_of, dtype_of, read_format


@dataclass(frozen=True, slots=True)
class Card:
    """``kv_bytes``: of one number in the KV cache; ``state_bytes``: of one in a layer's state.
    ``block_size`` in tokens. ``max_tokens``: the model's longest context."""

    shape: ModelShape
    weights: WeightFormat
    kv_bytes: float
    state_bytes: float
    block_size: int
    max_tokens: int = 0

    @property
    def attention(self) -> str:
        """The kinds of attention, with the number of layers of each."""
        kinds: dict[str, int] = {}
        for layer in self.shape.layers:
            label = f"{layer.kind} {layer.window_tokens}" if layer.window_tokens else layer.kind
            kinds[label] = kinds.get(label, 0) + 1
        return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.weights.total_bytes(self.shape)

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token in a context that is shorter than every window."""
        return round(self.kv_bytes * sum(layer.elements_per_token for layer in self.shape.layers))

    @property
    def long_kv_bytes_per_token(self) -> int:
        """What one more token adds once all windows are full."""
        whole = [layer for layer in self.shape.layers if not layer.window_tokens]
        return round(self.kv_bytes * sum(layer.elements_per_token for layer in whole))

    @property
    def block_bytes(self) -> int:
        """One KV block, over all layers."""
        return self.kv_bytes_per_token * self.block_size

    def request_bytes(self, context_tokens: int) -> int:
        """What a request of that length holds: whole blocks, windows, and states."""
        blocks = math.ceil(context_tokens / self.block_size)
        total = 0.0
        for layer in self.shape.layers:
            kept = layer.kept_tokens(blocks * self.block_size)
            kept = math.ceil(kept / self.block_size) * self.block_size
            total += kept * layer.elements_per_token * self.kv_bytes
            total += layer.state_elements * self.state_bytes
        return round(total)

    def most_requests(self, kv_room_bytes: int, context_tokens: int) -> int:
        """How many requests of that length fit at once; without sharing prefixes."""
        each = self.request_bytes(context_tokens)
        return kv_room_bytes // each if each else 0

    def most_tokens(self, kv_room_bytes: int) -> int:
        """Tokens that fit into whole blocks, all layers keeping all of them."""
        return kv_room_bytes // self.block_bytes * self.block_size if self.block_bytes else 0

    def prefill_flops(self, new_tokens: int, cached_tokens: int = 0) -> int:
        """To compute ``new_tokens`` behind ``cached_tokens``: matrices for each token, attention
        for each pair, and the logits of the last one."""
        attended = sum(
            layer.flops_per_pair * layer.pairs(new_tokens, cached_tokens)
            for layer in self.shape.layers
        )
        return 2 * self.shape.multiplied * new_tokens + attended + 2 * self.shape.head

    def decode_flops(self, requests: int, context_tokens: int) -> int:
        """One step of ``requests`` streams, each with ``context_tokens`` behind it."""
        attended = sum(
            layer.flops_per_pair * layer.kept_tokens(context_tokens) for layer in self.shape.layers
        )
        return requests * (2 * (self.shape.multiplied + self.shape.head) + attended)

    def step_weight_bytes(self, tokens: int) -> int:
        """Weights that a step of ``tokens`` reads. Of ``n`` experts, ``tokens`` that choose ``k``
        at random touch ``n * (1 - (1 - k/n) ** tokens)``."""
        shape = self.shape
        touched = 0.0
        if shape.experts:
            missed = (1 - shape.experts_per_token / shape.experts) ** tokens
            touched = shape.experts * (1 - missed) * shape.expert * shape.expert_layers
        plain = (shape.head + shape.small) * self.weights.plain_bytes
        return round(self.weights.matrices_bytes(shape, touched) + plain)

    def decode_bytes(self, requests: int, context_tokens: int) -> int:
        """What a decode step moves: weights, the KV of every context, and one new token each."""
        kept = sum(
            layer.elements_per_token * layer.kept_tokens(context_tokens)
            for layer in self.shape.layers
        )
        states = sum(layer.state_elements for layer in self.shape.layers)
        each = kept * self.kv_bytes + 2 * states * self.state_bytes + self.kv_bytes_per_token
        return self.step_weight_bytes(requests) + round(requests * each)

    @property
    def attention_flops_per_pair(self) -> int:
        """For a token to attend to one more earlier one, in the layers that see all of them."""
        whole = [layer for layer in self.shape.layers if not layer.window_tokens]
        return sum(layer.flops_per_pair for layer in whole)

    @property
    def attention_tokens(self) -> float:
        """Context at which attending costs a new token as much as the matrices do; infinite for a
        model without attention to the whole context."""
        pair = self.attention_flops_per_pair
        return 2 * self.shape.multiplied / pair if pair else math.inf


def make_card(
    config: Mapping[str, Any],
    *,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    block_size: int = 16,
) -> Card:
    """The card of a ``config.json``. ``dtype`` and ``kv_dtype`` as vLLM's arguments: None or
    ``auto`` mean the config's own.

    Raises:
        CardError: the configuration lacks something, or names what is not known.
    """
    own = dtype_of(config)
    dtype = own if dtype in (None, "auto") else dtype
    kv_dtype = dtype if kv_dtype in (None, "auto") else kv_dtype
    return Card(
        shape=read_shape(config),
        weights=read_format(config, dtype),
        kv_bytes=bytes_of(str(kv_dtype)),
        state_bytes=bytes_of(str(dtype)),
        block_size=block_size,
        max_tokens=int(text_config(config).get("max_position_embeddings") or 0),
    )


def read_card(folder: Path, **how: Any) -> Card:
    """The card of the model in ``folder``; ``how`` as for :func:`make_card`.

    Raises:
        CardError: there is no ``config.json`` that can be read, or it lacks something.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CardError(f"{file} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise CardError(f"{file} is not a JSON object")
    return make_card(config, **how)
