"""What of a prompt is written when little may wait for the disk: its beginning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.tiers.disk_store import DiskStore
from deployments.tiers.slot_file import KEY_BYTES, PAGE_BYTES, Layout, open_slot_file

pytest.importorskip("vllm")


def _keys(count: int) -> list[bytes]:
    return [number.to_bytes(KEY_BYTES, "big") for number in range(1, count + 1)]


def _job(number: int, keys: list[bytes]) -> Any:
    return SimpleNamespace(job_id=number, keys=keys, block_ids=list(range(len(keys))))


def test_of_a_prompt_longer_than_may_wait_the_beginning_is_written(tmp_path: Path) -> None:
    from deployments.tiers.disk_tier import DiskTier

    memory = memoryview(np.zeros((16, PAGE_BYTES), dtype=np.uint8))
    store = DiskStore(open_slot_file(tmp_path, Layout(bytes(32), PAGE_BYTES, 32)), lambda: 0.0)
    spec: Any = SimpleNamespace(kv_events_config=SimpleNamespace(enable_kv_cache_events=True))
    tier = DiskTier(spec, memory, store, 8)
    keys = _keys(12)
    tier.submit_store(_job(1, keys))
    tier.drain_jobs()
    assert [result.job_id for result in tier.get_finished_jobs()] == [1]
    assert [key in store for key in keys] == [True] * 8 + [False] * 4
    assert store.counts.failures == {"busy": 4}
    tier.submit_store(_job(2, keys))  # the prompt comes back: its end is new to the disk
    tier.drain_jobs()
    assert all(key in store for key in keys)
    (last,) = tier.get_finished_jobs()
    assert last.success
    tier.shutdown()
