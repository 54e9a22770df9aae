"""An outbox gives back what was written, once and in order, whatever happened to its writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.weir.ledger.records import usage_record
from weir.ledger import UsageRecord
from weir.ledger.frames import measure, pack, unpack
from weir.ledger.outbox import Outbox, OutboxLimits, adopt

SMALL = OutboxLimits(segment_bytes=1000)


def _numbers(frames: bytes) -> list[int]:
    records = [entry for entry in unpack(frames) if isinstance(entry, UsageRecord)]
    return [int(record.request.removeprefix("r")) for record in records]


def _read_all(outbox: Outbox, most_bytes: int = 700) -> list[int]:
    numbers: list[int] = []
    while (batch := outbox.read(most_bytes)) is not None:
        assert len(_numbers(batch.frames)) == batch.count
        assert batch.first + batch.count == outbox.read_to
        numbers += _numbers(batch.frames)
    return numbers


def _segments(outbox: Outbox) -> list[Path]:
    return sorted(outbox.folder.glob("*.segment"))


@given(
    sizes=st.lists(st.integers(1, 5), max_size=30),
    reads=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
)
def test_what_is_written_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], reads: list[int]
) -> None:
    outbox = Outbox.create(tmp_path_factory.mktemp("outbox"), "own", SMALL)
    count, read = 0, []
    for turn, size in enumerate(sizes):
        outbox.append([usage_record(count + i) for i in range(size)])
        count += size
        batch = outbox.read(reads[turn % len(reads)])
        assert batch is not None
        read += _numbers(batch.frames)
    assert read + _read_all(outbox) == list(range(count))
    assert outbox.next == count
    outbox.close()


def test_a_writer_that_is_killed_leaves_what_it_wrote(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from tests.weir.ledger.records import usage_record
from weir.ledger.outbox import Outbox
outbox = Outbox.create(Path(sys.argv[1]), "killed")
for number in range(50):
    outbox.append([usage_record(number)])
print("written", flush=True)
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).resolve().parents[3]
    env = {**os.environ, "PYTHONPATH": f"{root / 'platform'}:{root}"}
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=env, check=False)
    assert ended.returncode == -9
    (orphan,) = adopt(tmp_path)
    assert _read_all(orphan) == list(range(50))
    assert orphan.torn_bytes == 0
    orphan.trim(50)
    assert orphan.empty
    orphan.remove()
    assert list(tmp_path.iterdir()) == []


def test_nobody_takes_over_from_the_living(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, "own")
    outbox.append([usage_record(1)])
    assert list(adopt(tmp_path)) == []
    outbox.close()
    (orphan,) = adopt(tmp_path)
    assert list(adopt(tmp_path)) == []
    orphan.close()


@pytest.mark.parametrize("left", [1, 7, 20])
def test_a_torn_last_record_is_left_out(tmp_path: Path, left: int) -> None:
    outbox = Outbox.create(tmp_path, "own", SMALL)
    outbox.append([usage_record(number) for number in range(4)])
    outbox.close()
    (segment,) = _segments(outbox)
    torn = pack([usage_record(4)])[:left]
    segment.write_bytes(segment.read_bytes() + torn)
    (orphan,) = adopt(tmp_path)
    assert _read_all(orphan) == [0, 1, 2, 3]
    assert orphan.torn_bytes == left
    orphan.trim(4)
    assert orphan.empty
    orphan.close()


def test_a_damaged_record_hides_what_is_behind_it_in_its_segment_only(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, "own", SMALL)
    for number in range(40):
        outbox.append([usage_record(number)])
    outbox.close()
    first, second, *_ = _segments(outbox)
    damaged = bytearray(first.read_bytes())
    damaged[20] ^= 0xFF
    first.write_bytes(damaged)
    (orphan,) = adopt(tmp_path)
    begin = int(second.stem)
    assert _read_all(orphan) == list(range(begin, 40))
    orphan.close()


def test_it_is_read_again_from_any_record(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, "own", SMALL)
    for number in range(60):
        outbox.append([usage_record(number)])
    assert len(_segments(outbox)) > 3
    for begin in (59, 0, 31, 60):
        outbox.rewind(begin)
        assert _read_all(outbox) == list(range(begin, 60))
    outbox.close()


def test_only_what_the_database_has_is_removed(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, "own", SMALL)
    for number in range(60):
        outbox.append([usage_record(number)])
    size = outbox.size_bytes
    outbox.trim(30)
    assert outbox.size_bytes < size
    assert outbox.size_bytes == sum(path.stat().st_size for path in _segments(outbox))
    outbox.rewind(30)
    assert _read_all(outbox) == list(range(30, 60))
    outbox.trim(60)
    outbox.append([usage_record(60)])
    assert _read_all(outbox) == [60]
    outbox.close()


def test_a_full_disk_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox.create(tmp_path, "own", OutboxLimits(held_records=3))
    outbox.append([usage_record(0)])
    write, full = os.write, True

    def fails(file: int, data: bytes) -> int:
        if not full:
            return write(file, data)
        if len(data) < 400:
            return write(file, data[:10])  # there was room for a part of it
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("weir.ledger.outbox.os.write", fails)
    outbox.append([usage_record(1)])
    outbox.append([usage_record(2), usage_record(3), usage_record(4)])
    assert (outbox.held, outbox.lost) == (3, 1)
    outbox.write_held()
    assert outbox.held == 3
    full = False
    outbox.write_held()
    assert outbox.held == 0
    outbox.append([usage_record(5)])
    assert _read_all(outbox) == [0, 1, 2, 3, 5]
    outbox.close()


def test_its_size_is_bounded(tmp_path: Path) -> None:
    limits = OutboxLimits(max_bytes=5000, segment_bytes=1000, held_records=0)
    outbox = Outbox.create(tmp_path, "own", limits)
    for number in range(100):
        outbox.append([usage_record(number)])
    assert outbox.size_bytes <= 5000
    assert outbox.lost == 100 - outbox.next > 0
    outbox.trim(outbox.next)
    outbox.append([usage_record(100)])
    assert outbox.next + outbox.lost == 101
    outbox.close()


@pytest.mark.parametrize("cut", [0, 3, 8, 30])
def test_frames_are_measured_to_where_they_break_off(cut: int) -> None:
    frames = pack([usage_record(number) for number in range(3)])
    whole = measure(frames, len(frames))
    assert (whole.count, whole.size, whole.torn) == (3, len(frames), False)
    broken = measure(frames + frames[:cut], 2 * len(frames))
    assert (broken.count, broken.size, broken.torn) == (3, len(frames), cut > 0)
    with pytest.raises(ValueError, match=r"."):
        unpack(frames[:-1])


def test_more_than_a_record_is_never_cut(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, "own")
    outbox.append([usage_record(0), usage_record(1)])
    reads: list[Callable[[], object]] = [lambda: outbox.read(1), lambda: outbox.read(1)]
    assert [getattr(read(), "count", None) for read in reads] == [1, 1]
    assert outbox.read(1) is None
    outbox.close()
