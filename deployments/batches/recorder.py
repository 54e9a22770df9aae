"""Results on their way into parts: collected for a moment, written, and published together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from deployments.batches.results import Result, ResultTable
from deployments.batches.storage import Storage
from deployments.batches.threads import Threads

#: A result is published after that at the latest, or when so much has come together.
FLUSH_S = 0.5
_FLUSH_BYTES = 2 * 1024 * 1024
_FLUSH_RESULTS = 256


class NotTakenError(Exception):
    """The batch takes no more results: it has been cancelled, or its time is over."""


@dataclass(frozen=True, slots=True)
class _Entry:
    result: Result
    text: bytes
    published: asyncio.Future[bool]


def part_path(batch_id: str, part: str) -> str:
    """Where a part is in the storage."""
    return f"batches/{batch_id}/{part}"


class Recorder:
    """Of one gateway. ``ids`` makes the names of parts."""

    def __init__(
        self, storage: Storage, table: ResultTable, threads: Threads, ids: Callable[[], str]
    ) -> None:
        self._storage = storage
        self._table = table
        self._threads = threads
        self._ids = ids
        self._held: dict[tuple[int, str], list[_Entry]] = defaultdict(list)
        self._bytes = 0
        self._count = 0
        self._full = asyncio.Event()
        self._flushing = asyncio.Lock()

    def add(self, number: int, batch_id: str, result: Result, text: bytes) -> asyncio.Future[bool]:
        """Take a line's result: ``text`` is what the output has of it. Done when it is published:
        whether it is the line's (False: it had one already); with :class:`NotTakenError` where the
        batch takes no more."""
        published: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._held[number, batch_id].append(_Entry(result, text, published))
        self._bytes += len(text)
        self._count += 1
        if self._bytes >= _FLUSH_BYTES or self._count >= _FLUSH_RESULTS:
            self._full.set()
        return published

    @property
    def crowded(self) -> bool:
        """Whether so much is held that no more should come."""
        return self._bytes >= 4 * _FLUSH_BYTES or self._count >= 4 * _FLUSH_RESULTS

    async def wait(self) -> None:
        """Until it is time to publish."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._full.wait(), FLUSH_S)

    async def flush(self) -> None:
        """Publish what is held.

        Raises:
            OverloadedError: the storage or the database is away; everything is still held.
        """
        async with self._flushing:
            self._full.clear()
            held, self._held = self._held, defaultdict(list)
            self._bytes = self._count = 0
            for key, entries in held.items():
                try:
                    await self._publish(*key, entries)
                except BaseException:
                    for kept, unpublished in held.items():
                        self._keep(kept, unpublished)
                    raise

    def _keep(self, key: tuple[int, str], entries: list[_Entry]) -> None:
        left = [entry for entry in entries if not entry.published.done()]
        self._held[key] = left + self._held[key]
        self._bytes += sum(len(entry.text) for entry in left)
        self._count += len(left)

    async def _publish(self, number: int, batch_id: str, entries: list[_Entry]) -> None:
        part, results, offset = self._ids(), [], 0
        for entry in entries:
            results.append(replace(entry.result, offset=offset, bytes=len(entry.text)))
            offset += len(entry.text)
        text = b"".join(entry.text for entry in entries)
        taken = await self._threads.run(self._write, number, batch_id, part, text, results)
        for entry in entries:
            if entry.published.done():
                continue
            if taken is not None:
                entry.published.set_result(entry.result.line in taken)
            else:
                entry.published.set_exception(NotTakenError())
                entry.published.exception()  # whoever added it may be gone

    def _write(
        self, number: int, batch_id: str, part: str, text: bytes, results: list[Result]
    ) -> frozenset[int] | None:
        path = part_path(batch_id, part)
        self._storage.put(path, text)
        taken = self._table.record(number, part, results)
        if taken is None:
            self._storage.remove(path)
        return taken
