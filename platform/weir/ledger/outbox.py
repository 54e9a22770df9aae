"""Where a gateway process puts records before an answer ends: files that outlive the process.

An outbox is a folder of segments, ``NUMBER.segment``, named after the first record in them; records
are numbered from 0. It has one owner, who holds a lock on it; the lock ends with the process, and
then another process takes the outbox over and ships what is left. A segment goes when the database
has all of it, not before: Redis may lose what passes through it.

Records are written with one ``write`` and not synced: they survive the death of the process, not
that of the machine.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from weir.ledger.frames import MAX_FRAME_BYTES, Span, measure, pack
from weir.ledger.record import Entry

_LOG = logging.getLogger("weir.ledger")
_LOCK = "lock"
_SUFFIX = ".segment"


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """``max_bytes`` bounds all segments together. A segment ends at ``segment_bytes``. While
    nothing can be written, ``held_records`` are kept in memory; more are lost."""

    max_bytes: int = 256 * 1024 * 1024
    segment_bytes: int = 1024 * 1024
    held_records: int = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames in the order of their records, the first of which has the number ``first``."""

    first: int
    count: int
    frames: bytes


@dataclass(slots=True)
class _Segment:
    """``count`` is None of a segment of another process until it has been read to its end."""

    path: Path
    first: int
    size: int
    count: int | None


class Outbox:
    """One outbox, owned by this process. Not for use by several threads at a time.

    ``lost``: records that could not be written, nor held any longer. ``torn_bytes``: what its last
    owner had not finished writing.
    """

    def __init__(self, folder: Path, lock: int, limits: OutboxLimits | None = None) -> None:
        """Not called directly: :meth:`create` and :func:`adopt` hold the lock."""
        self.folder = folder
        self.lost = 0
        self.torn_bytes = 0
        self._limits = limits or OutboxLimits()
        self._lock = lock
        self._held: deque[Entry] = deque()
        self._file: int | None = None
        self._segments = [
            _Segment(path, int(path.stem), path.stat().st_size, None)
            for path in sorted(folder.glob(f"*{_SUFFIX}"))
        ]
        self._size = sum(segment.size for segment in self._segments)
        #: The number of the next record to be written.
        self.next = 0
        #: The number of the next record to be read, and where that is.
        self.read_to = self._segments[0].first if self._segments else 0
        self._place: _Segment | None = None
        self._offset = 0

    @classmethod
    def create(cls, root: Path, name: str, limits: OutboxLimits | None = None) -> Outbox:
        """A new one. ``name`` has to be unique.

        Raises:
            OSError: it cannot be made.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        unlocked = root / f".{name}"  # nobody takes it over before it is locked
        unlocked.mkdir(mode=0o700)
        lock = _try_lock(unlocked)
        if lock is None:
            raise FileExistsError(errno.EEXIST, "another process has it", str(unlocked))
        return cls(unlocked.rename(root / name), lock, limits)

    @property
    def name(self) -> str:
        """Unique among all outboxes."""
        return self.folder.name

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return self._size

    @property
    def held(self) -> int:
        """Records that wait in memory, because they cannot be written."""
        return len(self._held)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write records. What cannot be written is held in memory, so far as there is room."""
        if self._held or not self._write(entries):
            self._hold(entries)

    def write_held(self) -> None:
        """Try again to write what is held."""
        while self._held:
            entries = [self._held[i] for i in range(min(100, len(self._held)))]
            if not self._write(entries):
                return
            for _ in entries:
                self._held.popleft()

    def read(self, most_bytes: int) -> Batch | None:
        """The next records behind the last ones read; None where there are none now.

        Raises:
            OSError: the files cannot be read.
        """
        while (segment := self._segment_to_read()) is not None:
            data, span = self._look(segment, most_bytes)
            if span.count:
                first = self.read_to
                self._offset += span.size
                self.read_to += span.count
                return Batch(first, span.count, data[: span.size])
            if segment.count is not None and segment is self._segments[-1]:
                return None  # the one that is being written
            self._finish(segment, len(data))
        return None

    def rewind(self, number: int) -> None:
        """Read again from the record with that number on; what was trimmed is not there."""
        self._place = None
        for segment in self._segments:
            if segment.count is None or number < segment.first + segment.count:
                self._go_to(segment)
                break
        while self.read_to < number and self.read(1) is not None:
            pass

    def trim(self, number: int) -> None:
        """Everything before the record with that number is in the database: remove whole segments,
        and let a grown one end, so that it can go next."""
        if self._file is not None and number >= self.next:
            last = self._segments[-1]
            if last.size >= min(self._limits.segment_bytes, 64 * 1024):
                self._end_segment()
        while self._segments:
            segment = self._segments[0]
            ended = self._file is None or len(self._segments) > 1
            if not ended or segment.count is None or segment.first + segment.count > number:
                return
            with suppress(OSError):
                segment.path.unlink()
            self._size -= segment.size
            del self._segments[0]

    @property
    def empty(self) -> bool:
        """Whether no segment is left."""
        return not self._segments and not self._held

    def remove(self) -> None:
        """Take it off the disk, and let go of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go of it: another process may take it over."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        os.close(self._lock)

    def _write(self, entries: Sequence[Entry]) -> bool:
        data = pack(entries)
        if self._size + len(data) > self._limits.max_bytes:
            return False
        try:
            if self._file is None or self._segments[-1].size >= self._limits.segment_bytes:
                self._begin_segment()
            segment, file = self._segments[-1], self._file
            assert file is not None
            assert segment.count is not None
            if (written := os.write(file, data)) != len(data):
                os.ftruncate(file, segment.size)
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written")
        except OSError as error:
            if not self._held:
                _LOG.error("the outbox cannot be written", extra={"reason": str(error)})
            return False
        segment.size += len(data)
        self._size += len(data)
        segment.count += len(entries)
        self.next += len(entries)
        return True

    def _hold(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if len(self._held) < self._limits.held_records:
                self._held.append(entry)
            else:
                self.lost += 1

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self.folder / f"{self.next:020d}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._file = os.open(path, flags, mode=0o600)
        self._segments.append(_Segment(path, self.next, 0, 0))

    def _end_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _segment_to_read(self) -> _Segment | None:
        """The segment that has the next record, if there is one."""
        for segment in self._segments:
            if segment.count is None or self.read_to < segment.first + segment.count:
                if segment is not self._place:
                    self._go_to(segment)
                return segment
        return None

    def _go_to(self, segment: _Segment) -> None:
        self._place, self._offset, self.read_to = segment, 0, segment.first

    def _look(self, segment: _Segment, most_bytes: int) -> tuple[bytes, Span]:
        with segment.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(most_bytes)
            span = measure(data, most_bytes)
            if not span.count and len(data) == most_bytes:  # a frame that is larger
                data += file.read(MAX_FRAME_BYTES)
                span = measure(data, most_bytes)
        return data, span

    def _finish(self, segment: _Segment, left_bytes: int) -> None:
        """There is no further record in a segment, whatever else there is."""
        segment.count = self.read_to - segment.first
        if left_bytes:
            self.torn_bytes += left_bytes
            told = {"file": str(segment.path), "bytes": left_bytes}
            _LOG.warning("a record that was not written to its end is left out", extra=told)


def adopt(root: Path, limits: OutboxLimits | None = None) -> Iterator[Outbox]:
    """The outboxes below ``root`` whose owners are dead; this process owns them then."""
    with suppress(FileNotFoundError):
        for folder in sorted(root.iterdir()):
            ready = folder.is_dir() and not folder.name.startswith(".")
            if ready and (lock := _try_lock(folder)) is not None:
                yield Outbox(folder, lock, limits)


def _try_lock(folder: Path) -> int | None:
    """The lock's file descriptor; None where another process holds the lock, or has removed it."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
