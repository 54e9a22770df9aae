"""The two kinds of prefix knowledge that peers have: their own dispatches, or KV events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from load_tests.sim.blocks import KvOp


class DispatchIndex:
    """What was sent where: per replica the last ``capacity`` blocks, least recently sent first
    to go. It never hears what the engines really hold."""

    def __init__(self, replicas: int, capacity: int) -> None:
        self._capacity = capacity
        self._held: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(replicas)]

    def match(self, hashes: Sequence[int]) -> list[int]:
        """Leading blocks per replica."""
        return [leading(hashes, held) for held in self._held]

    def add(self, replica: int, hashes: Sequence[int]) -> None:
        """A prompt was sent; its tail is the first of it to go."""
        held = self._held[replica]
        for block_hash in reversed(hashes):
            if block_hash in held:
                held.move_to_end(block_hash)
            else:
                held[block_hash] = None
        while len(held) > self._capacity:
            held.popitem(last=False)

    def size(self, replica: int) -> int:
        """Blocks listed for a replica."""
        return len(self._held[replica])


class EventIndex:
    """What the engines said they hold."""

    def __init__(self, replicas: int) -> None:
        self._held: list[set[int]] = [set() for _ in range(replicas)]

    def match(self, hashes: Sequence[int]) -> list[int]:
        """Leading blocks per replica."""
        return [leading(hashes, held) for held in self._held]

    def apply(self, replica: int, ops: Sequence[KvOp]) -> None:
        """Blocks appeared and disappeared."""
        held = self._held[replica]
        for stored, hashes, _ in ops:
            if stored:
                held.update(hashes)
            else:
                held.difference_update(hashes)


def leading(hashes: Sequence[int], held: Container[int]) -> int:
    """How many of ``hashes``, from the first, are in ``held``."""
    count = 0
    for block_hash in hashes:
        if block_hash not in held:
            break
        count += 1
    return count
