"""vLLM's manager of tiers, with a bound on what a request may bring in, and figures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import OffloadingConnectorStats
from vllm.v1.kv_offload.base import (
    LoadStoreSpec,
    LookupResult,
    OffloadKey,
    PrepareStoreOutput,
    ReqContext,
    ScheduleEndContext,
)
from vllm.v1.kv_offload.tiering.manager import (
    CPUPrimaryTierOffloadingManager,
    TieringOffloadingManager,
)

from deployments.tiers.disk_tier import DiskTier

MEMORY, DISK = "memory", "disk"
#: A request that found no room for its blocks so often (once an engine step) computes them.
PATIENCE = 1000


class TieredManager(TieringOffloadingManager):  # type: ignore[misc]
    """``slot_bytes``: what a block takes in the memory tier.

    vLLM brings blocks from the disk into the memory tier as long as a request's prompt goes on
    there, and drops what was used longest ago for them: a prompt that is longer than the memory
    tier would drop its own beginning, again and again, and never start, and many prompts at once
    would drop each other's. Here a request brings each block in at most once, and at most half of
    what the memory tier holds; what is behind that is computed. While half of it is taken by
    blocks that were brought in and not used yet, other requests wait, for :data:`PATIENCE` looks
    at most.
    """

    def __init__(
        self,
        memory: MemoryTier,
        disk: DiskTier | None,
        slots: int,
        slot_bytes: int,
    ) -> None:
        super().__init__(memory, [disk] if disk is not None else [])
        self._memory = memory
        self._disk = disk
        self._stored = self._loaded = 0
        self._slot_bytes = slot_bytes
        self._slots = slots
        self._most_brought = max(1, slots // 2)
        self._brought: dict[str, set[OffloadKey]] = {}
        self._unused: dict[str, int] = {}  # request → blocks brought in for it and not used yet
        self._waited: dict[str, int] = {}
        self._told: dict[tuple[str, tuple[str, ...]], int] = {}

    def lookup(self, key: OffloadKey, req_context: ReqContext, **more: Any) -> LookupResult:
        """See the base class."""
        if self._unused and self._must_wait(key, req_context):
            return LookupResult.RETRY
        return super().lookup(key, req_context, **more)

    def prepare_load(self, keys: Collection[OffloadKey], req_context: ReqContext) -> LoadStoreSpec:
        """See the base class."""
        self._unused.pop(req_context.req_id, None)
        return super().prepare_load(keys, req_context)

    def on_schedule_end(self, context: ScheduleEndContext) -> None:
        """See the base class."""
        for request_id in context.new_req_ids if self._unused else ():
            self._unused.pop(request_id, None)
        super().on_schedule_end(context)

    def on_request_finished(self, req_context: ReqContext, **more: Any) -> None:
        """See the base class."""
        for held in (self._brought, self._unused, self._waited):
            held.pop(req_context.req_id, None)
        super().on_request_finished(req_context, **more)

    def reset_cache(self) -> None:
        """See the base class."""
        self._unused.clear()
        super().reset_cache()

    def _must_wait(self, key: OffloadKey, req_context: ReqContext) -> bool:
        """Whether the block would have to be brought in, and others' have taken the room."""
        request_id = req_context.req_id
        if self._disk is None or request_id in self._unused:
            return False
        if sum(self._unused.values()) < self._most_brought or key not in self._disk.store:
            return False
        if self.primary_tier.lookup(key, req_context) is not LookupResult.MISS:
            return False
        waited = self._waited.get(request_id, 0)
        self._waited[request_id] = waited + 1
        return waited < PATIENCE

    def _initiate_promotion(self, tier_idx: int, key: OffloadKey, req_context: ReqContext) -> bool:
        request_id = req_context.req_id
        brought = self._brought.setdefault(request_id, set())
        if key in brought or len(brought) >= self._most_brought:
            return False
        brought.add(key)
        if not super()._initiate_promotion(tier_idx, key, req_context):
            return False
        self._unused[request_id] = self._unused.get(request_id, 0) + 1
        return True

    def complete_store(self, keys: Collection[OffloadKey], *more: Any, **named: Any) -> None:
        """See the base class."""
        super().complete_store(keys, *more, **named)
        self._stored += len(keys)

    def complete_load(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        """See the base class."""
        super().complete_load(keys, req_context)
        self._loaded += len(keys)

    def has_pending_work(self) -> bool:
        """Whether the engine must go on stepping without requests. Blocks that are being written
        need no steps; a request that waits for blocks is one."""
        return False

    def get_stats(self) -> OffloadingConnectorStats | None:
        """vLLM's, and those of :data:`weir.metrics.TIER_METRICS` that have changed."""
        stats = super().get_stats() or OffloadingConnectorStats()
        blocks = self._memory.blocks
        self._tell(stats, MEMORY, blocks, blocks * self._slot_bytes, self._slots * self._slot_bytes)
        self._tell_counts(stats, MEMORY, self._stored, self._loaded, self._memory.evicted)
        if self._disk is not None:
            store = self._disk.store
            counts = store.counts
            self._tell(stats, DISK, len(store), store.bytes_used, store.bytes_most)
            self._tell_counts(stats, DISK, counts.stored, counts.loaded, counts.evicted)
            for reason, failed in list(counts.failures.items()):
                self._count(stats, "weir_kv_tier_failed_blocks", failed, DISK, reason)
        return stats

    def _tell(
        self, stats: OffloadingConnectorStats, tier: str, blocks: int, used: int, most: int
    ) -> None:
        for name, value in (("blocks", blocks), ("bytes", used), ("limit_bytes", most)):
            name = f"weir_kv_tier_{name}"
            if self._told.get((name, (tier,))) != value:
                self._told[name, (tier,)] = value
                stats.set_gauge(name, value, (tier,))

    def _tell_counts(
        self, stats: OffloadingConnectorStats, tier: str, stored: int, loaded: int, evicted: int
    ) -> None:
        self._count(stats, "weir_kv_tier_stored_blocks", stored, tier)
        self._count(stats, "weir_kv_tier_loaded_blocks", loaded, tier)
        self._count(stats, "weir_kv_tier_evicted_blocks", evicted, tier)

    def _count(self, stats: OffloadingConnectorStats, name: str, total: int, *labels: str) -> None:
        """What ``total`` has grown by since it was told last."""
        before = self._told.get((name, labels), 0)
        if total != before:
            self._told[name, labels] = total
            stats.increase_counter(name, total - before, labels)


class MemoryTier(CPUPrimaryTierOffloadingManager):  # type: ignore[misc]
    """vLLM's memory tier, which counts what it drops."""

    evicted = 0

    @property
    def blocks(self) -> int:
        """Slots in use."""
        return int(self._num_allocated_blocks - len(self._free_list))

    def prepare_store(self, *args: Any, **named: Any) -> PrepareStoreOutput | None:
        """See the base class."""
        output = super().prepare_store(*args, **named)
        if output is not None:
            self.evicted += len(output.evicted_keys)
        return output
