"""The disk tier's index: bounded, least recently used first, and never a wrong block."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deployments.tiers.disk_store import PAUSE_S, DiskStore
from deployments.tiers.slot_file import (
    KEY_BYTES,
    PAGE_BYTES,
    Layout,
    SlotFile,
    open_slot_file,
)

LAYOUT = Layout(bytes(32), PAGE_BYTES, 4)


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def payload(number: int) -> memoryview:
    return memoryview(number.to_bytes(2, "big") * (PAGE_BYTES // 2))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[DiskStore]:
    made = DiskStore(open_slot_file(tmp_path, LAYOUT), clock)
    yield made
    made.close()


def load(store: DiskStore, number: int) -> bytes | None:
    into = bytearray(PAGE_BYTES)
    return bytes(into) if store.load(key(number), memoryview(into)) else None


def test_the_least_recently_used_block_gives_way(store: DiskStore) -> None:
    for number in range(1, 5):
        assert store.store(key(number), payload(number))
    store.touch([key(1), key(2)])  # a prompt's beginning and end: the end goes first
    for number in (5, 6, 7):
        store.store(key(number), payload(number))
    assert [number for number in range(1, 8) if key(number) in store] == [1, 5, 6, 7]
    assert store.counts.evicted == 3
    assert store.bytes_used == 4 * PAGE_BYTES <= store.bytes_most
    assert load(store, 1) == bytes(payload(1))


def test_what_is_there_is_not_written_again(store: DiskStore) -> None:
    assert store.store(key(1), payload(1))
    assert store.store(key(1), payload(2))
    assert store.counts.stored == 1
    assert load(store, 1) == bytes(payload(1))


def test_changes_are_told_in_order_bit_by_bit(store: DiskStore) -> None:
    for number in range(1, 6):
        store.store(key(number), payload(number))
    first = store.take_changes(4)
    rest = store.take_changes(100)
    assert [(int.from_bytes(k), there) for k, there in first + rest] == [
        (1, True), (2, True), (3, True), (4, True), (1, False), (5, True),
    ]  # fmt: skip
    assert store.take_changes(1) == []


def test_a_restart_finds_everything_and_the_oldest_still_goes_first(
    tmp_path: Path, store: DiskStore, clock: Clock
) -> None:
    for number in range(1, 7):
        store.store(key(number), payload(number))
    store.close()
    again = DiskStore(open_slot_file(tmp_path, LAYOUT), clock)
    assert [int.from_bytes(k) for k, there in again.take_changes(9) if there] == [3, 4, 5, 6]
    assert load(again, 3) == bytes(payload(3))
    again.store(key(7), payload(7))
    assert [number for number in range(8) if key(number) in again] == [4, 5, 6, 7]


def test_a_damaged_block_is_not_there_and_its_slot_is_free_again(
    tmp_path: Path, store: DiskStore
) -> None:
    for number in range(1, 5):
        store.store(key(number), payload(number))
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as raw:
        raw.seek(LAYOUT.first_slot)
        raw.write(b"\xff")
    found = {number: load(store, number) for number in range(1, 5)}
    assert list(found.values()).count(None) == 1
    assert all(held in (None, bytes(payload(number))) for number, held in found.items())
    assert store.counts.failures == {"damaged": 1}
    assert len(store) == 3
    store.store(key(9), payload(9))
    assert store.counts.evicted == 0


class FullDisk(SlotFile):
    """A disk on which ``room`` more blocks fit."""

    room = 2

    def write(self, slot: int, key: bytes, stamp: int, payload: memoryview) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        super().write(slot, key, stamp, payload)


def test_a_full_disk_is_left_alone_for_a_while_and_goes_on_being_read(
    tmp_path: Path, clock: Clock
) -> None:
    made = open_slot_file(tmp_path, LAYOUT)
    file = FullDisk(made.path, made._descriptor, LAYOUT)
    store = DiskStore(file, clock)
    stored = [store.store(key(number), payload(number)) for number in range(1, 6)]
    assert stored == [True, True, False, False, False]
    assert store.counts.failures == {"full": 1, "paused": 2}
    assert load(store, 2) == bytes(payload(2))
    assert load(store, 3) is None
    clock.now_s = PAUSE_S
    file.room = 9
    assert store.store(key(3), payload(3))
    assert load(store, 3) == bytes(payload(3))
    store.close()


def test_a_block_that_is_being_read_keeps_its_slot(tmp_path: Path, clock: Clock) -> None:
    reading, go_on = threading.Event(), threading.Event()

    class Slow(SlotFile):
        def read(self, slot: int, key: bytes, into: memoryview) -> bool:
            reading.set()
            go_on.wait(10)
            return super().read(slot, key, into)

    made = open_slot_file(tmp_path, LAYOUT)
    store = DiskStore(Slow(made.path, made._descriptor, LAYOUT), clock)
    for number in range(1, 5):
        store.store(key(number), payload(number))
    got: list[bytes | None] = []
    reader = threading.Thread(target=lambda: got.append(load(store, 1)))
    reader.start()
    assert reading.wait(10)
    for number in range(5, 9):
        store.store(key(number), payload(number))
    assert key(1) in store
    go_on.set()
    reader.join(10)
    assert got == [bytes(payload(1))]
    store.close()


class StoreMachine(RuleBasedStateMachine):
    """Any order of writing, reading, using, damaging, filling and killing: what is read is what was
    written under that key, the file keeps its size, and nobody is told what is not so."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.told: set[bytes] = set()
        self.room: int | None = None
        self.boot()

    def boot(self) -> None:
        made = open_slot_file(Path(self.folder.name), LAYOUT)
        self.file = FullDisk(made.path, made._descriptor, LAYOUT)
        self.file.room = 10**6
        self.store = DiskStore(self.file, self.clock)
        self.told.clear()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(number=st.integers(1, 9))
    def write(self, number: int) -> None:
        self.store.store(key(number), payload(number))

    @rule(number=st.integers(1, 9))
    def read(self, number: int) -> None:
        there = key(number) in self.store
        held = load(self.store, number)
        assert held in (None, bytes(payload(number)))
        assert there or held is None

    @rule(numbers=st.lists(st.integers(1, 9)))
    def use(self, numbers: list[int]) -> None:
        self.store.touch([key(number) for number in numbers])

    @rule(at=st.integers(PAGE_BYTES, LAYOUT.file_bytes - 1), bit=st.integers(0, 7))
    def damage(self, at: int, bit: int) -> None:
        with self.file.path.open("r+b") as raw:
            raw.seek(at)
            byte = raw.read(1) or b"\0"
            raw.seek(at)
            raw.write(bytes([byte[0] ^ 1 << bit]))

    @rule(room=st.integers(0, 3))
    def fill(self, room: int) -> None:
        self.file.room = room

    @rule()
    def wait(self) -> None:
        self.clock.now_s += PAUSE_S
        self.file.room = 10**6

    @rule()
    def kill(self) -> None:
        self.store.close()
        self.boot()

    @invariant()
    def bounded(self) -> None:
        assert len(self.store) <= LAYOUT.slots
        assert self.file.path.stat().st_size <= LAYOUT.file_bytes
        for changed, there in self.store.take_changes(1000):
            (self.told.add if there else self.told.discard)(changed)
        assert self.told == set(self.store._slots)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
