"""How long an engine step takes, by the roofline model (Williams, Waterman and Patterson, CACM
2009) applied to each kind of kernel apart.

A step computes ``prefill`` new prompt tokens and one token for each of ``decodes`` streams:

* matrices take the longer of their floating point operations and reading the weights once;
* attention of prompts takes its operations, attention of streams reads their KV cache;
* tensor parallelism sums activations twice a layer over the links (a ring: each device sends
  ``2 (n - 1) / n`` of the tensor), expert parallelism sends each token to its experts and back;
* and a step has costs of its own: launching, scheduling, sampling.

Everything is divided by the devices that share the work. :class:`Efficiencies` says what share of a
device's peaks such kernels reach, and where those figures come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from weir.cards import Card
from weir.planner.accelerators import Accelerator


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Shares of the peaks in (0, 1], and costs in seconds.

    ``widened``: of ``matrices``, where the device has no units for the weights' type, so that they
    are widened on the way.

    They were fitted by ``weir bench planner --fit`` on the published figures that it names as
    fitted, within the bounds that others measured: matrices of 4,096 tokens reach 656 of
    989 TFLOP/s (Vidur's profiles, MLSys 2024), FlashAttention-3 up to 740 in bfloat16 (Shah et
    al., 2024), large copies 80 to 92 % of the memory's bandwidth.
    """

    matrices: float = 0.565
    attention: float = 0.543
    memory: float = 0.92
    links: float = 0.448
    step_s: float = 2.18e-3
    sequence_s: float = 4.3e-6
    layer_hop_s: float = 30e-6
    widened: float = 0.468


@dataclass(frozen=True, slots=True)
class Layout:
    """How one replica spreads over devices.

    ``tensor`` and ``pipeline``: parallel degrees. ``data``: so many copies of the attention layers
    share the requests, and the experts are spread over all of them (wide expert parallelism).
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.pipeline * self.data

    @property
    def name(self) -> str:
        """Such as ``TP 2``."""
        parts = [f"TP {self.tensor}"] if self.tensor > 1 or self.devices == 1 else []
        parts += [f"PP {self.pipeline}"] if self.pipeline > 1 else []
        parts += [f"DP {self.data} with wide EP"] if self.data > 1 else []
        return ", ".join(parts)

    def kv_copies(self, kv_heads: int) -> float:
        """How often each token's KV is kept: tensor parallelism splits heads, and copies what has
        fewer of them than devices (MLA's one vector always: ``kv_heads`` is 1 then)."""
        return max(1.0, self.tensor / kv_heads)


@dataclass(frozen=True, slots=True)
class StepTime:
    """The parts of one step, in seconds."""

    matrices_s: float
    attention_s: float
    kv_s: float
    links_s: float
    own_s: float

    @property
    def total_s(self) -> float:
        """The parts run one after the other."""
        return self.matrices_s + self.attention_s + self.kv_s + self.links_s + self.own_s


class Roofline:
    """Step times of one replica. ``weight_speed``: times faster than bfloat16 that the matrix
    units are with the weights' type."""

    def __init__(
        self,
        card: Card,
        accelerator: Accelerator,
        layout: Layout,
        efficiencies: Efficiencies,
        hidden: int,
        kv_heads: int,
    ) -> None:
        self.card = card
        self.accelerator = accelerator
        self.layout = layout
        self.efficiencies = efficiencies
        self._hidden = hidden
        self.kv_copies = layout.kv_copies(kv_heads)
        self._speed = _speed(card, accelerator, efficiencies)

    def step(
        self, prefill: float, decodes: float, context: float, attended: float = 0.0
    ) -> StepTime:
        """``context``: mean tokens behind each stream; ``attended``: mean tokens behind each of the
        ``prefill`` prompt tokens."""
        e, device, n = self.efficiencies, self.accelerator, self.layout.devices
        tokens = prefill + decodes
        flops = tokens * 2 * self.card.shape.multiplied + decodes * 2 * self.card.shape.head
        computed = flops / (n * device.flops_per_s * self._speed * e.matrices)
        read = self._read_bytes(tokens) / (device.bytes_per_s * e.memory)
        attention = prefill * self._pair_flops(attended) / (n * device.flops_per_s * e.attention)
        kept = decodes * self._kept_bytes(context) * self.kv_copies
        kv = kept / (n * device.bytes_per_s * e.memory)
        own = e.step_s + decodes * e.sequence_s
        return StepTime(max(computed, read), attention, kv, self._links(tokens), own)

    def prefill_s(self, tokens: int, cached: int, budget: int) -> float:
        """To compute a prompt alone, in steps of ``budget`` tokens."""
        left, behind, total = tokens, cached, 0.0
        while left > 0:
            now = min(left, budget)
            total += self.step(now, 0, 0, behind + now / 2).total_s
            left, behind = left - now, behind + now
        return total

    @property
    def weight_bytes(self) -> int:
        """On all devices together, what each keeps a copy of counted so often."""
        return self.card.weight_bytes + (self.layout.data - 1) * self._copied_bytes

    @property
    def _copied_bytes(self) -> int:
        """What data-parallel attention keeps on each of its devices: all but the experts."""
        shape, weights = self.card.shape, self.card.weights
        plain = (shape.embedding + shape.head + shape.small) * weights.plain_bytes
        return round(weights.matrices_bytes(shape, 0) + plain)

    def _read_bytes(self, tokens: float) -> float:
        """Weights that each device reads in a step."""
        read, data = self.card.step_weight_bytes(max(1, round(tokens))), self.layout.data
        if data == 1:
            return read / self.layout.devices
        copied = min(read, self._copied_bytes)
        return (read - copied) / self.layout.devices + copied * data / self.layout.devices

    def _pair_flops(self, attended: float) -> float:
        return sum(
            layer.flops_per_pair * layer.kept_tokens(round(attended))
            for layer in self.card.shape.layers
        )

    def _kept_bytes(self, context: float) -> float:
        kept = sum(
            layer.elements_per_token * layer.kept_tokens(round(context))
            for layer in self.card.shape.layers
        )
        states = sum(layer.state_elements for layer in self.card.shape.layers)
        return kept * self.card.kv_bytes + 2 * states * self.card.state_bytes

    def _links(self, tokens: float) -> float:
        """Two all-reduces a layer, or sending tokens to their experts and back."""
        n, e = self.layout.tensor, self.efficiencies
        link = self.accelerator.link_bytes_per_s * e.links
        layers, data = len(self.card.shape.layers), self.layout.data
        total = 0.0
        if n > 1:
            moved = tokens / data * self._hidden * 2 * 2 * (n - 1) / n
            total += 2 * layers * (moved / link + e.layer_hop_s)
        if data > 1:
            each = tokens / data * self._hidden * 2 * self.card.shape.experts_per_token
            sent = each * (data - 1) / data
            total += 2 * self.card.shape.expert_layers * (sent / link + e.layer_hop_s)
        return total


def _speed(card: Card, accelerator: Accelerator, efficiencies: Efficiencies) -> float:
    """How many times faster than with bfloat16 the matrix units are with the weights' type."""
    bits = card.weights.quantized_bytes * 8
    if bits > 9:
        return 1.0
    speed = accelerator.fp4 if bits <= 5 else accelerator.fp8
    return speed if speed > 1 else efficiencies.widened
