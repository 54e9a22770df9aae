"""The disk as a tier behind vLLM's memory tier: :class:`DiskStore` in threads.

vLLM's offloading manager asks it, in the engine's thread, what is there; blocks go to and from the
memory tier's slots in threads of its own. vLLM cannot undo a load into the device's cache, so a
block is read and checked before anybody counts on it: one that is not as it was written is a block
that is not there.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar

from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadingSpec,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

from deployments.tiers.disk_store import DiskStore

_LOG = logging.getLogger("weir.replica")
_READERS = 2
#: Changes told of in one engine step: a replica that takes over a full disk tells bit by bit.
_TOLD_AT_ONCE = 2000


class DiskTier(SecondaryTierManager):  # type: ignore[misc]
    """``memory``: the memory tier, one row a slot. ``most_writing``: slots of it that may be held
    for writing; blocks that come when so many are, are not written, so that a slow disk never takes
    the memory tier's room."""

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(
        self,
        spec: OffloadingSpec,
        memory: memoryview,
        store: DiskStore,
        most_writing: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(spec, memory, "disk")
        self.locality = Locality.LOCAL
        self.store = store
        self._clock = clock
        self._row_bytes = memory.strides[0] if memory.strides else 0
        self._memory = memory.cast("B")
        self._most_writing = most_writing
        self._writing: dict[int, int] = {}  # job → slots of the memory tier that it holds
        self._events = spec.kv_events_config.enable_kv_cache_events
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kv-disk-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="kv-disk-read")
        self._under_way: set[Future[None]] = set()
        self._finished: queue.SimpleQueue[JobResult] = queue.SimpleQueue()

    # -- what vLLM calls, in the engine's thread --------------------------------------------------

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Whether a block is there; see the base class."""
        return LookupResult.HIT if key in self.store else LookupResult.MISS

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Write blocks that are not there yet; see the base class."""
        missing = [
            (key, self._row(slot))
            for key, slot in zip(job_metadata.keys, job_metadata.block_ids, strict=True)
            if key not in self.store
        ]
        room = max(0, self._most_writing - sum(self._writing.values()))
        # Of a prompt its beginning is written, which is of use by itself.
        taken, left = missing[:room], missing[room:]
        if left:
            self.store.skip(len(left))
        if left and not taken:
            self._finished.put(JobResult(job_metadata.job_id, False))
            return
        self._writing[job_metadata.job_id] = len(taken)
        self._run(self._writer, self._store, job_metadata.job_id, taken)

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Read blocks into the memory tier; see the base class."""
        wanted = [
            (key, self._row(slot))
            for key, slot in zip(job_metadata.keys, job_metadata.block_ids, strict=True)
        ]
        self._run(self._readers, self._load, job_metadata.job_id, wanted)

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """What has ended since the last call; see the base class."""
        self._under_way = {future for future in self._under_way if not future.done()}
        results = []
        with contextlib.suppress(queue.Empty):
            while True:
                result = self._finished.get_nowait()
                self._writing.pop(result.job_id, None)
                results.append(result)
        return results

    def touch(self, keys: Iterable[OffloadKey], req_context: ReqContext) -> None:
        """These blocks are in use; see the base class."""
        self.store.touch(keys)

    def take_events(self) -> Iterable[OffloadingEvent]:
        """Which blocks appeared and disappeared; see the base class."""
        changes = self.store.take_changes(_TOLD_AT_ONCE)
        if not self._events:
            return
        for keys, stored in _runs(changes):
            yield OffloadingEvent(
                keys, self.medium, removed=not stored, locality=self.locality, ownership="disk"
            )

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """Blocks are stored one by one, as they are computed; see the base class."""
        return RequestOffloadingContext()

    def drain_jobs(self) -> None:
        """Wait until nothing is read or written; see the base class."""
        wait(self._under_way)

    def shutdown(self) -> None:
        """Finish what is under way, and let go of the disk."""
        for threads in (self._writer, self._readers):
            threads.shutdown(wait=True, cancel_futures=True)
        self._memory.release()
        self.store.close()

    # -- in threads -------------------------------------------------------------------------------

    def _store(self, job_id: int, blocks: Sequence[tuple[OffloadKey, memoryview]]) -> None:
        begun_s = self._clock()
        stored = [self.store.store(key, row) for key, row in blocks]
        took_s = self._clock() - begun_s
        self._finished.put(JobResult(job_id, all(stored), transfer_time=took_s))

    def _load(self, job_id: int, blocks: Sequence[tuple[OffloadKey, memoryview]]) -> None:
        begun_s = self._clock()
        good = [key for key, row in blocks if self.store.load(key, row)]
        took_s = self._clock() - begun_s
        whole = len(good) == len(blocks)
        self._finished.put(JobResult(job_id, whole, None if whole else good, took_s))

    # -- inside -----------------------------------------------------------------------------------

    def _row(self, slot: Any) -> memoryview:
        begin = int(slot) * self._row_bytes
        return self._memory[begin : begin + self._row_bytes]

    def _run(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[[int, Sequence[tuple[OffloadKey, memoryview]]], None],
        job_id: int,
        blocks: Sequence[tuple[OffloadKey, memoryview]],
    ) -> None:
        def guarded() -> None:
            try:
                work(job_id, blocks)
            except Exception:  # noqa: BLE001 - a job without a result would hold its slots for ever
                _LOG.exception("the disk tier failed")
                self._finished.put(JobResult(job_id, False))

        self._under_way.add(threads.submit(guarded))


def _runs(changes: Sequence[tuple[bytes, bool]]) -> Iterable[tuple[list[OffloadKey], bool]]:
    """Neighbours of the same kind together, in order."""
    keys: list[OffloadKey] = []
    kind = True
    for key, stored in changes:
        if keys and stored is not kind:
            yield keys, kind
            keys = []
        kind = stored
        keys.append(OffloadKey(key))
    if keys:
        yield keys, kind
