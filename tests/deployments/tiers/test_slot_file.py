"""The disk tier's file: who may have it, how large it is, and what damage looks like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.tiers.slot_file import KEY_BYTES, PAGE_BYTES, Layout, SlotFile, open_slot_file

NAMESPACE, OTHER = bytes(32), bytes([1]) * 32
KEY = bytes([7]) * KEY_BYTES
LIMIT = 10 * PAGE_BYTES


def layout(namespace: bytes = NAMESPACE, limit: int = LIMIT) -> Layout:
    return Layout.within(namespace, 100, limit)


def block(value: int) -> memoryview:
    return memoryview(bytes([value]) * PAGE_BYTES)


def read(file: SlotFile, slot: int = 0, key: bytes = KEY) -> bytes | None:
    into = bytearray(PAGE_BYTES)
    return bytes(into) if file.read(slot, key, memoryview(into)) else None


@pytest.mark.parametrize("limit", [3, 4, 5, 80, 81, 1000])
def test_a_file_is_never_larger_than_its_limit_and_wastes_little(limit: int) -> None:
    made = layout(limit=limit * PAGE_BYTES + 17)
    assert made.file_bytes <= limit * PAGE_BYTES + 17
    assert Layout(NAMESPACE, made.slot_bytes, made.slots + 1).file_bytes > limit * PAGE_BYTES + 17


def test_a_limit_below_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match="do not hold"):
        layout(limit=2 * PAGE_BYTES)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = open_slot_file(tmp_path / "new" / "folder", layout())
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.path.stat().st_size == file.layout.file_bytes
    file.close()


def test_a_block_is_read_as_it_was_written_also_after_reopening(tmp_path: Path) -> None:
    file = open_slot_file(tmp_path, layout())
    file.write(2, KEY, 5, block(3))
    assert read(file, 2) == bytes(block(3))
    file.close()
    again = open_slot_file(tmp_path, layout())
    assert again.path == file.path
    assert [(entry.slot, entry.key, entry.stamp) for entry in again.entries()] == [(2, KEY, 5)]
    assert read(again, 2) == bytes(block(3))
    again.close()


def test_another_key_or_an_empty_slot_is_not_there(tmp_path: Path) -> None:
    file = open_slot_file(tmp_path, layout())
    file.write(0, KEY, 1, block(3))
    assert read(file, 0, bytes(KEY_BYTES)) is None
    assert read(file, 1) is None
    file.erase(0)
    assert read(file) is None
    assert list(file.entries()) == []
    file.close()


@pytest.mark.parametrize("where", ["first byte", "last byte", "key", "checksum"])
def test_one_flipped_bit_and_the_block_is_not_there(tmp_path: Path, where: str) -> None:
    file = open_slot_file(tmp_path, layout())
    file.write(0, KEY, 1, block(3))
    first = file.layout.first_slot
    places = {"first byte": first, "last byte": first + PAGE_BYTES - 1}
    places |= {"key": PAGE_BYTES, "checksum": PAGE_BYTES + KEY_BYTES + 8}
    with file.path.open("r+b") as raw:
        raw.seek(places[where])
        (byte,) = raw.read(1)
        raw.seek(places[where])
        raw.write(bytes([byte ^ 16]))
    assert read(file) is None
    file.close()


@pytest.mark.parametrize("left", [0, PAGE_BYTES, 2 * PAGE_BYTES, 2 * PAGE_BYTES + 1000])
def test_what_is_behind_the_end_of_a_truncated_file_is_not_there(tmp_path: Path, left: int) -> None:
    file = open_slot_file(tmp_path, layout())
    file.write(0, KEY, 1, block(3))
    os.truncate(file.path, left)
    assert read(file) is None
    file.write(0, KEY, 2, block(4))
    assert read(file) == bytes(block(4))
    file.close()


def test_a_full_disk_raises_and_claims_nothing() -> None:
    full = SlotFile(Path("/dev/full"), os.open("/dev/full", os.O_RDWR), layout())
    with pytest.raises(OSError, match="No space left"):
        full.write(0, KEY, 1, block(3))
    assert read(full) is None
    full.close()


def test_two_replicas_never_share_a_file(tmp_path: Path) -> None:
    first, second = (open_slot_file(tmp_path, layout()) for _ in range(2))
    assert first.path != second.path
    first.write(0, KEY, 1, block(1))
    second.close()
    first.close()
    third = open_slot_file(tmp_path, layout())
    assert third.path == first.path
    assert read(third) == bytes(block(1))
    third.close()


def test_another_models_file_is_deleted_unless_somebody_holds_it(tmp_path: Path) -> None:
    old = open_slot_file(tmp_path, layout(OTHER))
    new = open_slot_file(tmp_path, layout())
    assert old.path.exists()
    old.close()
    new.close()
    open_slot_file(tmp_path, layout()).close()
    assert not old.path.exists()
    assert new.path.exists()


def test_a_file_of_another_size_is_made_anew(tmp_path: Path) -> None:
    file = open_slot_file(tmp_path, layout())
    file.write(0, KEY, 1, block(1))
    file.close()
    larger = open_slot_file(tmp_path, layout(limit=2 * LIMIT))
    assert list(larger.entries()) == []
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [larger.layout.file_bytes]
    larger.close()


def test_strangers_files_are_left_alone(tmp_path: Path) -> None:
    stranger = tmp_path / "notes.txt"
    stranger.write_text("mine")
    linked = tmp_path / f"{OTHER.hex()[:16]}-0.kv"
    linked.symlink_to(stranger)
    open_slot_file(tmp_path, layout()).close()
    assert stranger.read_text() == "mine"


_HOLDER = """
import sys, time
from pathlib import Path
from deployments.tiers.slot_file import Layout, open_slot_file
file = open_slot_file(Path(sys.argv[1]), Layout.within(bytes(32), 100, 40960))
for stamp in range(10_000_000):
    file.write(stamp % file.layout.slots, bytes([stamp % 7 + 1]) * 36, stamp,
               memoryview(bytes([stamp % 7 + 1]) * 4096))
    if stamp == 100:
        print("writing", flush=True)
"""


def test_a_killed_writer_leaves_whole_blocks_or_none(
    tmp_path: Path, package_env: dict[str, str]
) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=package_env) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        beside = open_slot_file(tmp_path, layout())
        writer.kill()
    file = open_slot_file(tmp_path, layout())
    assert file.path != beside.path  # the lock ended with the process
    found = 0
    for entry in file.entries():
        held = read(file, entry.slot, entry.key)
        assert held in (None, entry.key[:1] * PAGE_BYTES)
        found += held is not None
    assert found >= file.layout.slots - 1
    beside.close()
    file.close()
