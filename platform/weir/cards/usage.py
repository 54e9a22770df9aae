"""MFU and MBU of a running engine: work done per second over what the device could do.

* **MFU** (model FLOPs utilization, PaLM, arXiv:2204.02311): floating point operations of the model
  per second ÷ peak operations per second.
* **MBU** (model bandwidth utilization, Databricks' "LLM Inference Performance Engineering"): bytes
  of weights and KV cache read and written per second ÷ peak bytes per second.

Work is counted once per engine step, from what the engine reports of it:

* prompts whose prefill ended in the step: :meth:`Card.prefill_flops` of the mean of them,
* generated tokens: matrices and head for each, and attention to the tokens that the KV cache holds,
* bytes: the weights once, what the KV cache holds once if something was generated, and the new
  tokens' keys and values.

It is an estimate. A prefix that several requests share is read once per request and counted once,
a prompt computed in several steps is counted in the last one, and rejected guesses of speculative
decoding are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from weir.cards.card import Card
from weir.cards.peaks import Peaks

_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step. ``prefills``: prompts that became complete, with ``computed_tokens`` in all
    and ``cached_tokens`` found; ``generated_tokens`` counts the prompts' first tokens too.
    ``kv_use``: the share of the KV cache that running requests hold, in [0, 1]."""

    prefills: int
    computed_tokens: int
    cached_tokens: int
    generated_tokens: int
    kv_use: float


class WorkCounter:
    """Adds up operations and bytes of one engine. ``devices``: how many share the work, so the
    figures are those of one device."""

    def __init__(self, card: Card, kv_blocks: int, devices: int = 1) -> None:
        self._card = card
        self._devices = devices
        self._kv_tokens = kv_blocks * card.block_size
        self._kv_bytes = kv_blocks * card.block_bytes
        self._per_token_flops = 2 * (card.shape.multiplied + card.shape.head)
        self._weight_bytes = None if card.shape.experts else card.step_weight_bytes(1)
        self.flops = 0.0
        self.moved_bytes = 0.0

    def add_step(self, step: Step) -> None:
        """Count a step from its tokens."""
        card, flops = self._card, 0.0
        if step.prefills:
            each = (step.computed_tokens // step.prefills, step.cached_tokens // step.prefills)
            flops += step.prefills * card.prefill_flops(*each)
        decoded = max(0, step.generated_tokens - step.prefills)
        new = step.computed_tokens + decoded
        moved = self._weights(new) + new * card.kv_bytes_per_token
        if decoded:
            attended = step.kv_use * self._kv_tokens * card.attention_flops_per_pair
            flops += decoded * self._per_token_flops + attended
            moved += step.kv_use * self._kv_bytes
        self.add(flops / self._devices, moved / self._devices)

    def add(self, flops: float, moved_bytes: float) -> None:
        """Count a step whose work on one device the engine has told itself."""
        self.flops += flops
        self.moved_bytes += moved_bytes

    def _weights(self, tokens: int) -> float:
        known = self._weight_bytes
        return self._card.step_weight_bytes(max(1, tokens)) if known is None else known


class UsageMeter:
    """MFU and MBU over the last whole window of at least a second."""

    def __init__(self, counter: WorkCounter, peaks: Peaks) -> None:
        self._counter, self._peaks = counter, peaks
        self._since_s: float | None = None
        self._flops = self._bytes = 0.0
        self._last = (0.0, 0.0)

    def read(self, now_s: float) -> tuple[float, float]:
        """MFU and MBU, in [0, 1] but for errors of estimate; ``now_s`` on a monotonic clock."""
        if self._since_s is None:
            self._since_s = now_s
        passed_s = now_s - self._since_s
        if passed_s >= _WINDOW_S:
            counter, peaks = self._counter, self._peaks
            mfu = (counter.flops - self._flops) / passed_s / peaks.flops_per_s
            mbu = (counter.moved_bytes - self._bytes) / passed_s / peaks.bytes_per_s
            self._last = (round(mfu, 4), round(mbu, 4))
            self._since_s, self._flops, self._bytes = now_s, counter.flops, counter.moved_bytes
        return self._last
