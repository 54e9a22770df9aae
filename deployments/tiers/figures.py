"""A replica's tiers in figures, from what its engine says after a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.tiers.config import SPEC
from router.tiers import TierUse

#: How much the last step's loads count in the smoothed time of a block.
_SMOOTHING = 0.2
_BLOCKS, _BYTES = "weir_kv_tier_blocks", "weir_kv_tier_bytes"
_LIMIT = "weir_kv_tier_limit_bytes"
#: Metric → label values → figure.
_Figures = Mapping[str, Mapping[tuple[str, ...], Any]]
#: vLLM's names of what moved, and how long it took: memory to device, and disk to memory.
_TO_DEVICE = ("vllm:kv_offload_load_bytes", "vllm:kv_offload_load_time")
_TO_MEMORY = ("vllm:kv_offload_tiering_read_bytes", "vllm:kv_offload_tiering_read_time")


class TierFigures:
    """Feed it every step; ``use`` is what is known by then."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], int] = {}
        self._load_s = {_TO_DEVICE: 0.0, _TO_MEMORY: 0.0}
        self.use = TierUse()

    def add(self, stats: Mapping[str, Any]) -> None:
        """``stats``: a step's ``kv_connector_stats`` of vLLM's offloading connector."""
        data: _Figures = stats.get("data") or {}
        for name in (_BLOCKS, _BYTES, _LIMIT):
            for labels, value in data.get(name, {}).items():
                self._held[name, labels[0]] = int(value)
        for names in self._load_s:
            self._measure(names, data)
        held = self._held.get
        self.use = TierUse(
            held((_BYTES, "memory"), 0),
            held((_LIMIT, "memory"), 0),
            held((_BYTES, "disk"), 0),
            held((_LIMIT, "disk"), 0),
            self._load_s[_TO_DEVICE],
            self._load_s[_TO_MEMORY],
        )

    def _measure(self, names: tuple[str, str], data: _Figures) -> None:
        moved, took_s = (sum(data.get(name, {}).values()) for name in names)
        blocks = self._held.get((_BLOCKS, "memory"), 0)
        if moved <= 0 or not blocks:
            return
        block_bytes = self._held[_BYTES, "memory"] / blocks
        block_s = took_s * block_bytes / moved
        before = self._load_s[names]
        self._load_s[names] = before + (block_s - before) * (_SMOOTHING if before else 1.0)


def tier_figures(config: Any) -> TierFigures | None:
    """For an engine of vLLM's ``VllmConfig``; None where it has no tiers."""
    transfer = config.kv_transfer_config
    extra = transfer.kv_connector_extra_config if transfer is not None else {}
    return TierFigures() if extra.get("spec_name") == SPEC else None
