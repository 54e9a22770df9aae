"""Which KV blocks are in which slot of a :class:`~deployments.tiers.slot_file.SlotFile`.

The least recently used block gives its slot to a new one. Threads store and load while the engine
asks what is there; one lock guards the index, and nobody holds it while a disk works. A slot that
is being written or read is no one's to take.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from deployments.tiers.slot_file import SlotFile

#: After a failed write nothing is written for so long: a full disk stays full for a while.
PAUSE_S = 30.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST_STAMP = 1 << 62


@dataclass(slots=True)
class Counts:
    """Since the start, in blocks. ``failures``: why blocks were not written (``full``, ``broken``,
    ``paused``: within :data:`PAUSE_S` of a failure, ``busy``: too much else is being written) or
    not read (``damaged``, ``unreadable``)."""

    stored: int = 0
    loaded: int = 0
    evicted: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, reason: str, blocks: int = 1) -> None:
        """So many blocks more."""
        self.failures[reason] = self.failures.get(reason, 0) + blocks


class DiskStore:
    """Takes over what the file holds, newest writes last. ``clock`` gives monotonic seconds.

    ``changes``: what appeared (True) and disappeared (False), in order, for whoever tells others;
    it begins with what the file held.
    """

    def __init__(self, file: SlotFile, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: OrderedDict[bytes, int] = OrderedDict()  # least recently used first
        self._readers: dict[bytes, int] = {}
        self._writing: set[bytes] = set()
        self._paused_until_s = float("-inf")
        self._stamp = 0
        self.counts = Counts()
        self.changes: deque[tuple[bytes, bool]] = deque()
        for entry in sorted(file.entries(), key=lambda entry: entry.stamp):
            self._slots.pop(entry.key, None)
            self._slots[entry.key] = entry.slot
            self._stamp = min(entry.stamp, _MOST_STAMP)  # a damaged one may be anything
        taken = set(self._slots.values())
        self._free = [n for n in reversed(range(file.layout.slots)) if n not in taken]
        self.changes.extend((key, True) for key in self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    @property
    def bytes_used(self) -> int:
        """What the blocks take; at most ``Layout.file_bytes``."""
        return len(self._slots) * self._file.layout.slot_bytes

    @property
    def bytes_most(self) -> int:
        """The size of the whole file, which is at most the limit."""
        return self._file.layout.file_bytes

    def touch(self, keys: Iterable[bytes]) -> None:
        """These prompts' blocks, first to last, are in use. The last one of them will go first:
        what is left of a prompt is then still a beginning."""
        with self._lock:
            for key in reversed(list(keys)):
                if key in self._slots:
                    self._slots.move_to_end(key)

    def store(self, key: bytes, payload: memoryview) -> bool:
        """Write a block, unless it is there. False: it is not stored."""
        with self._lock:
            if key in self._slots or key in self._writing:
                return True
            slot = self._take()
            if slot is None:
                return False
            self._writing.add(key)
            self._stamp += 1
            stamp = self._stamp
        try:
            self._file.write(slot, key, stamp, payload)
        except OSError as error:
            self._failed(key, slot, error)
            return False
        with self._lock:
            self._writing.discard(key)
            self._slots[key] = slot
            self.counts.stored += 1
            self.changes.append((key, True))
        return True

    def load(self, key: bytes, into: memoryview) -> bool:
        """Read a block. False: it is not there, or was damaged and is not there any more."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                return False
            self._readers[key] = self._readers.get(key, 0) + 1
        reason = "damaged"
        try:
            good = self._file.read(slot, key, into)
        except OSError:
            good, reason = False, "unreadable"
        with self._lock:
            self._readers[key] -= 1
            last = not self._readers[key]
            if last:
                del self._readers[key]
            if good:
                self.counts.loaded += 1
                return True
            self.counts.fail(reason)
            # With another reader under way the slot stays taken: its own failure frees it.
            if last and self._slots.get(key) == slot:
                self._drop(key)
        return False

    def skip(self, blocks: int) -> None:
        """So many blocks are not written, because too many others are."""
        with self._lock:
            self.counts.fail("busy", blocks)

    def take_changes(self, most: int) -> list[tuple[bytes, bool]]:
        """At most ``most`` of :attr:`changes`, oldest first, which are then forgotten."""
        with self._lock:
            count = min(most, len(self.changes))
            return [self.changes.popleft() for _ in range(count)]

    def close(self) -> None:
        """Let go of the file. Nothing may be under way."""
        self._file.close()

    def _take(self) -> int | None:
        """A slot for a block that is to be written; None where there is none now."""
        if self._clock() < self._paused_until_s:
            self.counts.fail("paused")
            return None
        if self._free:
            return self._free.pop()
        for key in self._slots:
            if key not in self._readers:
                self.counts.evicted += 1
                self.changes.append((key, False))
                return self._slots.pop(key)
        self.counts.fail("busy")
        return None

    def _drop(self, key: bytes) -> None:
        slot = self._slots.pop(key)
        self.changes.append((key, False))
        self._erase(slot)

    def _failed(self, key: bytes, slot: int, error: OSError) -> None:
        with self._lock:
            self._writing.discard(key)
            self._paused_until_s = self._clock() + PAUSE_S
            self.counts.fail("full" if error.errno in _FULL else "broken")
            self._erase(slot)

    def _erase(self, slot: int) -> None:
        self._free.append(slot)
        with contextlib.suppress(OSError):  # its checksum says the same, later
            self._file.erase(slot)
