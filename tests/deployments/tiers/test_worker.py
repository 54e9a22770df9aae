"""Copies between a cache and the memory tier, in plain memory."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

BLOCKS, SLOTS, PAGE, LAYERS = 12, 40, 4096, 3


class _Region:
    """Slots as the shared region has them: layers beside each other in one row."""

    def __init__(self) -> None:
        self.memory = torch.zeros((SLOTS, LAYERS * PAGE), dtype=torch.int8)
        self._given = 0

    def create_next_worker_view(self, page_bytes: int) -> Any:
        begin, self._given = self._given, self._given + page_bytes
        return self.memory[:, begin : begin + page_bytes]

    def cleanup(self) -> None:
        """Nothing is mapped."""


def _worker(region: _Region, caches: list[Any]) -> Any:
    from deployments.tiers.worker import CpuCopyWorker

    canonical = SimpleNamespace(
        tensors=[SimpleNamespace(tensor=cache, page_size_bytes=PAGE) for cache in caches],
        group_data_refs=[[SimpleNamespace(tensor_idx=n) for n in range(LAYERS)]],
    )
    return CpuCopyWorker(canonical, region)


def _specs(blocks: list[int], slots: list[int]) -> tuple[Any, Any]:
    from vllm.v1.kv_offload.base import BlockIDsLoadStoreSpec

    class Tier(BlockIDsLoadStoreSpec):  # type: ignore[misc]
        @staticmethod
        def medium() -> str:
            return "memory"

    cache = SimpleNamespace(block_ids=np.array(blocks, dtype=np.int64), group_sizes=[len(blocks)])
    return cache, Tier(slots)


def test_blocks_come_back_as_they_went_and_nothing_else_is_touched() -> None:
    torch.manual_seed(1)
    caches = [torch.randint(-128, 128, (BLOCKS, PAGE), dtype=torch.int8) for _ in range(LAYERS)]
    before = [cache.clone() for cache in caches]
    region = _Region()
    worker = _worker(region, caches)
    cache, tier = _specs([3, 7, 0], [20, 5, 39])
    assert worker.submit_store(1, cache, tier)
    for cache_now in caches:
        cache_now[[3, 7, 0]] = 0
    into, _ = _specs([1, 2, 7], [])
    assert worker.submit_load(2, tier, into)
    for now, was in zip(caches, before, strict=True):
        assert torch.equal(now[[1, 2, 7]], was[[3, 7, 0]])
        assert torch.equal(now[[4, 5, 6, 8, 9, 10, 11]], was[[4, 5, 6, 8, 9, 10, 11]])
    untouched = [slot for slot in range(SLOTS) if slot not in (20, 5, 39)]
    assert not region.memory[untouched].any()
    done = worker.get_finished()
    assert [result.job_id for result in done] == [1, 2]
    assert {result.transfer_size for result in done} == {3 * LAYERS * PAGE}
    assert worker.get_finished() == []


def test_a_copy_is_near_to_what_memory_can_do() -> None:
    """Byte by byte, as some of PyTorch's functions copy, it would cost more than computing."""
    caches = [torch.ones((BLOCKS, PAGE), dtype=torch.int8) for _ in range(LAYERS)]
    worker = _worker(_Region(), caches)
    cache, tier = _specs([*range(BLOCKS)], [*range(BLOCKS)])
    plain = np.ones((BLOCKS, LAYERS * PAGE), dtype=np.uint8)

    def fastest(work: Any) -> float:
        times = []
        for _ in range(30):
            begun_s = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun_s)
        return min(times)

    ratio = fastest(lambda: worker.submit_load(1, tier, cache)) / fastest(plain.copy)
    assert ratio < 40
