"""One file of equal slots for KV blocks, each with its key and checksum: the disk tier's bytes.

The file has a fixed size: a page that says for whom it is, a table with one entry a slot, and the
slots. Nothing is ever appended, renamed or synchronised. A block counts only if the checksum in its
entry fits the namespace, the key and the payload, so a write that was cut off, a flipped bit, a
truncated file and a power cut all look the same: the block is not there.

The file belongs to the process that holds its lock (flock), which ends with the process however it
ends; the next replica takes it over.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 4096
KEY_BYTES = 36
_MAGIC = b"weirkv01"
#: Magic, namespace, bytes of a slot, number of slots.
_HEAD = struct.Struct("<8s32sQQ")
#: Key, when it was written (a count), checksum.
_ENTRY = struct.Struct("<36sQ32s")
_NO_KEY = bytes(KEY_BYTES)
_NAME = re.compile(r"^([0-9a-f]{16})-(\d+)\.kv$")


@dataclass(frozen=True, slots=True)
class Layout:
    """Whose blocks are in a file (``namespace``: 32 bytes), and how many of what size."""

    namespace: bytes
    slot_bytes: int
    slots: int

    @classmethod
    def within(cls, namespace: bytes, block_bytes: int, max_bytes: int) -> Layout:
        """As many slots for blocks of ``block_bytes`` as a file of at most ``max_bytes`` has.

        Raises:
            ValueError: not even one.
        """
        slot_bytes = -(-block_bytes // PAGE_BYTES) * PAGE_BYTES
        # The table is rounded up to a page: one page less is safe, one slot more may still fit.
        slots = max(0, (max_bytes - 2 * PAGE_BYTES) // (slot_bytes + _ENTRY.size))
        if cls(namespace, slot_bytes, slots + 1).file_bytes <= max_bytes:
            slots += 1
        if not slots:
            raise ValueError(f"{max_bytes} bytes of disk do not hold a KV block of {block_bytes}")
        return cls(namespace, slot_bytes, slots)

    @property
    def first_slot(self) -> int:
        """Where the slots begin."""
        return PAGE_BYTES - (-self.slots * _ENTRY.size // PAGE_BYTES) * PAGE_BYTES

    @property
    def file_bytes(self) -> int:
        """The size of the whole file."""
        return self.first_slot + self.slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table says of a slot. ``stamp`` grows with every write."""

    slot: int
    key: bytes
    stamp: int


class SlotFile:
    """An open, locked file. Its methods may be called by several threads, for different slots."""

    def __init__(self, path: Path, descriptor: int, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self._descriptor = descriptor

    def entries(self) -> Iterator[Entry]:
        """All slots that are said to hold a block; whether they do, :meth:`read` finds out."""
        size = self.layout.slots * _ENTRY.size
        table = os.pread(self._descriptor, size, PAGE_BYTES)
        whole = len(table) // _ENTRY.size * _ENTRY.size
        for slot, (key, stamp, _) in enumerate(_ENTRY.iter_unpack(table[:whole])):
            if key != _NO_KEY:
                yield Entry(slot, key, stamp)

    def write(self, slot: int, key: bytes, stamp: int, payload: memoryview) -> None:
        """Put a block into a slot; whatever was there is gone, also when this fails.

        Raises:
            OSError: the disk is full, or broken.
        """
        at = self.layout.first_slot + slot * self.layout.slot_bytes
        done = 0
        while done < len(payload):
            done += os.pwrite(self._descriptor, payload[done:], at + done)
        entry = _ENTRY.pack(key, stamp, self._checksum(key, payload))
        written = os.pwrite(self._descriptor, entry, PAGE_BYTES + slot * _ENTRY.size)
        if written != _ENTRY.size:
            raise OSError(errno.ENOSPC, "the table of slots was cut off")

    def read(self, slot: int, key: bytes, into: memoryview) -> bool:
        """Fill ``into`` with the block; False where it is not there unharmed (``into`` then holds
        anything).

        Raises:
            OSError: the disk is broken.
        """
        at = self.layout.first_slot + slot * self.layout.slot_bytes
        done = 0
        while done < len(into):
            read = os.preadv(self._descriptor, [into[done:]], at + done)
            if not read:
                return False
            done += read
        raw = os.pread(self._descriptor, _ENTRY.size, PAGE_BYTES + slot * _ENTRY.size)
        if len(raw) != _ENTRY.size:
            return False
        found, _, checksum = _ENTRY.unpack(raw)
        return bool(found == key and checksum == self._checksum(key, into))

    def erase(self, slot: int) -> None:
        """The table says nothing of the slot any more.

        Raises:
            OSError: the disk is broken.
        """
        os.pwrite(self._descriptor, bytes(_ENTRY.size), PAGE_BYTES + slot * _ENTRY.size)

    def close(self) -> None:
        """Let go of the file; another process may have it."""
        os.close(self._descriptor)

    def _checksum(self, key: bytes, payload: memoryview) -> bytes:
        digest = hashlib.sha256(self.layout.namespace + key)
        digest.update(payload)  # without the interpreter's lock, where it is more than 2 KiB
        return digest.digest()


def open_slot_file(folder: Path, layout: Layout) -> SlotFile:
    """The first file in ``folder`` that fits and that no process holds, or else a new one.

    Files of other namespaces (another model, version or layout) that nobody holds are deleted; so
    are those of this namespace with another size. The folder is for one model's pool alone.

    Raises:
        OSError: the folder or the file cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = layout.namespace.hex()[:16]
    found = [(match[1], int(match[2])) for match in map(_NAME.match, os.listdir(folder)) if match]
    own: SlotFile | None = None
    for other, number in sorted(found, key=lambda name: name[1]):
        path = folder / f"{other}-{number}.kv"
        descriptor = _lock(path)
        if descriptor is None:
            continue
        fits = other == prefix and os.pread(descriptor, _HEAD.size, 0) == _head(layout)
        if fits and own is None:
            own = SlotFile(path, descriptor, layout)
            continue
        if not fits:
            path.unlink(missing_ok=True)
        os.close(descriptor)
    return own or _create(folder, prefix, layout)


def _create(folder: Path, prefix: str, layout: Layout) -> SlotFile:
    number = 0
    while True:
        path = folder / f"{prefix}-{number}.kv"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            number += 1
            continue
        # Whoever saw the file before it was locked found no head in it, and may have deleted it.
        if not _try_lock(descriptor) or not os.fstat(descriptor).st_nlink:
            os.close(descriptor)
            continue
        try:
            os.ftruncate(descriptor, layout.file_bytes)
            os.pwrite(descriptor, _head(layout), 0)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return SlotFile(path, descriptor, layout)


def _head(layout: Layout) -> bytes:
    return _HEAD.pack(_MAGIC, layout.namespace, layout.slot_bytes, layout.slots)


def _lock(path: Path) -> int | None:
    """An open and locked file; None where it is held, or gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    # A file that was deleted between opening and locking is nobody's.
    if _try_lock(descriptor) and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
