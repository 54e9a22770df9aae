"""The KV blocks that engines of a test keep for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Wait = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class _Entry:
    owner: object
    until_s: float
    going: Wait


class KeptBlocks:
    """Of all engines of a cluster. What nobody takes is freed after ``lease_s`` of the running
    loop's clock."""

    def __init__(self, lease_s: float = 2.0) -> None:
        self._lease_s = lease_s
        self._entries: dict[bytes, _Entry] = {}
        self._count = 0
        self.taken = 0

    def keep(self, owner: object, going: Wait) -> bytes:
        """What another engine has to say to have them. ``going``: waits while the owner's engine
        stands still."""
        self._count += 1
        key = b"kept-%d" % self._count
        self._entries[key] = _Entry(owner, self._now_s() + self._lease_s, going)
        return key

    async def take(self, key: bytes) -> bool:
        """Whether they are there; they are then free. Waits for an owner that stands still."""
        entry = self._entries.get(key)
        if entry is None or entry.until_s < self._now_s():
            return False
        await entry.going()
        if self._entries.pop(key, None) is None:
            return False
        self.taken += 1
        return True

    def lose(self, owner: object) -> None:
        """Its engine is gone, and with it what it kept."""
        self._entries = {k: e for k, e in self._entries.items() if e.owner is not owner}

    def held(self) -> int:
        """Prompts whose blocks are kept now."""
        now_s = self._now_s()
        self._entries = {k: e for k, e in self._entries.items() if e.until_s >= now_s}
        return len(self._entries)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
