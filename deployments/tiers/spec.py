"""What vLLM's offloading connector loads by name: memory tier, disk tier, and who copies.

Everything of vLLM's that is touched here is experimental there;
``tests/deployments/tiers/test_engine.py`` fails loudly when an upgrade moves it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vllm
from vllm.platforms import current_platform
from vllm.v1.kv_offload.base import (
    CanonicalKVCaches,
    OffloadingCounterMetadata,
    OffloadingGaugeMetadata,
    OffloadingManager,
    OffloadingMetricMetadata,
    OffloadingWorker,
)
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

from deployments.tiers.config import DISK
from deployments.tiers.disk_store import DiskStore
from deployments.tiers.disk_tier import DiskTier
from deployments.tiers.manager import MemoryTier, TieredManager
from deployments.tiers.namespace import model_digest, namespace, processor
from deployments.tiers.slot_file import Layout, open_slot_file
from deployments.tiers.worker import CpuCopyWorker
from weir.metrics import TIER_METRICS

_LOG = logging.getLogger("weir.replica")


class TieredSpec(TieringOffloadingSpec):  # type: ignore[misc]
    """vLLM's spec for tiers, which refuses CPUs and whose disk tier has neither bounds nor
    checksums. The memory tier is vLLM's (least recently used goes first, bounded in bytes)."""

    _manager: TieredManager | None
    _worker: OffloadingWorker | None

    @classmethod
    def build_metric_definitions(
        cls, extra_config: dict[str, Any]
    ) -> dict[str, OffloadingMetricMetadata]:
        """vLLM's, and those of :data:`weir.metrics.TIER_METRICS`."""
        definitions: dict[str, OffloadingMetricMetadata] = dict(
            super().build_metric_definitions(extra_config)
        )
        for name, metric in TIER_METRICS.items():
            kind = OffloadingCounterMetadata if metric.counts else OffloadingGaugeMetadata
            definitions[name] = kind(metric.documentation, metric.labels)
        return definitions

    def get_manager(self) -> OffloadingManager:
        """The scheduler's side; see the base class."""
        if self._manager is None:
            self._manager = self._make_manager()
        return self._manager

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """The side of whoever holds the cache; see the base class."""
        if not current_platform.is_cpu():
            return super().get_worker(kv_caches)
        if self._worker is None:
            rank = 0 if self.replicated_layout else self.config.parallel.rank
            self._worker = CpuCopyWorker(kv_caches, self._region(rank))
        return self._worker

    def _make_manager(self) -> TieredManager:
        if not self.num_blocks:
            least = self.kv_bytes_per_chunk
            raise ValueError(f"engine.kv_tiers.memory_bytes: a KV block alone takes {least} bytes")
        region = self._region(None)
        # All workers have mapped the memory by now: without a name it ends with the last process,
        # however that ends.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(region.mmap_path)
        memory = MemoryTier(
            num_blocks=self.num_blocks,
            mmap_region=region,
            cache_policy=self.eviction_policy,
            enable_events=self.kv_events_config.enable_kv_cache_events,
        )
        disk = self._make_disk(memory.get_kv_memoryview(), self.extra_config.get(DISK))
        return TieredManager(memory, disk, self.num_blocks, self.kv_bytes_per_chunk)

    def _make_disk(self, memory: memoryview, told: Mapping[str, Any] | None) -> DiskTier | None:
        """``told``: see :func:`deployments.tiers.config.tiers_transfer`. A disk that cannot be had
        is done without."""
        if told is None:
            return None
        whose = self._namespace(told["engine"])
        layout = Layout.within(whose, self.kv_bytes_per_chunk, told["max_bytes"])
        try:
            file = open_slot_file(Path(told["folder"]), layout)
        except OSError as error:
            _LOG.error("no disk for KV blocks", extra={"reason": str(error)})
            return None
        # A quarter of the memory tier may be held for writing, and at least one prompt's blocks.
        store = DiskStore(file, time.monotonic)
        return DiskTier(self, memory, store, max(8, self.num_blocks // 4))

    def _namespace(self, engine: str) -> bytes:
        config = self.config
        parallel = config.parallel
        return namespace(
            format=1,
            vllm=vllm.__version__,
            engine=engine,
            model=model_digest(config.model.name),
            dtype=config.model.dtype,
            layout=config.kv_cache_layout,
            block_bytes=config.worker_kv_bytes_per_block,
            groups=[[group.tokens_per_block, *group.layer_names] for group in config.groups],
            tokens_per_hash=config.cache.tokens_per_hash,
            parallel=[parallel.world_size, parallel.tp_size, parallel.pp_size],
            processor=processor() if current_platform.is_cpu() else _device(),
        )

    def _region(self, rank: int | None) -> SharedOffloadRegion:
        region = SharedOffloadRegion(
            engine_id=self._engine_id,
            num_blocks=self.num_blocks,
            rank=rank,
            kv_bytes_per_block=self.kv_bytes_per_chunk,
            cpu_page_size=self.cpu_page_size_per_worker,
        )
        # Its name is taken away by the manager, not by who made it (see _make_manager).
        region._creator = False
        return region


def _device() -> str:
    return str(current_platform.get_device_name())
