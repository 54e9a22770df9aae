"""Which KV blocks replicas keep outside their device: in host memory, or on disk.

Fed by the same KV events as the prefix index, whose ``medium`` says where a block is. Where the
prefix index has a tree, here a set per replica is enough: events of these tiers name blocks without
their parents (after a restart the disk tier knows nothing else), and few requests get this far.

A prompt's blocks beyond those on the device are looked for by bisection, as if what a tier holds
were always a beginning. Tiers drop the end of a prompt first, so it nearly always is; a hole is
overlooked, which costs what computing it costs and makes no answer wrong.

What it is worth: a block in a tier counts as cached, minus what loading it costs by the replica's
own measurements. No gain is shown in the simulator, whose engines have no tiers; ``weir bench
tiers`` shows what tiers are worth on one replica, where there is nothing to choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

#: Of a block whose loading nobody has measured yet, in seconds.
USUAL_MEMORY_LOAD_S = 1e-4
USUAL_DISK_LOAD_S = 1e-3
#: Seconds to prefill a token while nothing is known: 10,000 tokens a second.
USUAL_TOKEN_S = 1e-4
#: Blocks remembered for a replica; what comes behind that is not known of.
MOST_BLOCKS = 1_000_000
#: As KV events call them; anything else is no tier.
MEMORY, DISK = 1, 2
MEDIUMS: Mapping[str | None, int] = {"CPU": MEMORY, "STORAGE": DISK}


class TierUse(msgspec.Struct, array_like=True, frozen=True):
    """What a replica tells of its tiers: bytes in use, the most that they may be, and how long a
    block takes from memory to the device, and from the disk to memory (0: not measured yet)."""

    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    disk_bytes: int = 0
    disk_limit_bytes: int = 0
    memory_load_s: float = 0.0
    disk_load_s: float = 0.0


class Beyond(NamedTuple):
    """A prompt's blocks that follow those on the device: ``memory`` of them in host memory, then
    ``disk`` of them on disk."""

    memory: int
    disk: int


class Tiered(NamedTuple):
    """The same as a policy sees it. ``load_work``: what loading them costs, in tokens of
    prefill."""

    blocks: int
    load_work: float


class TierIndex:
    """Not thread-safe: one event loop owns it.

    ``held``: replica → block → tiers, of replicas that keep anything there. It stays the same
    mapping, so that a decision can ask it whether there is anything at all.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[int, int]] = {}

    def blocks(self, replica_id: str) -> int:
        """How many blocks are known of."""
        return len(self.held.get(replica_id, ()))

    def stored(self, replica_id: str, keys: Sequence[int], tier: int) -> None:
        """Blocks came into a tier."""
        held = self.held.setdefault(replica_id, {})
        for key in keys:
            tiers = held.get(key, 0)
            if tiers or len(held) < MOST_BLOCKS:
                held[key] = tiers | tier

    def removed(self, replica_id: str, keys: Sequence[int], tier: int) -> None:
        """Blocks left a tier."""
        held = self.held.get(replica_id)
        if held is None:
            return
        for key in keys:
            if left := held.get(key, 0) & ~tier:
                held[key] = left
            else:
                held.pop(key, None)
        if not held:
            del self.held[replica_id]

    def forget(self, replica_id: str) -> None:
        """The replica left, or nothing is known of it any more."""
        self.held.pop(replica_id, None)

    def beyond(self, hashes: Sequence[int], on_device: Mapping[str, int]) -> dict[str, Beyond]:
        """Of each replica that has some, the prompt's blocks behind those ``on_device``."""
        found = {}
        for replica_id, held in self.held.items():
            begin = on_device.get(replica_id, 0)
            if begin >= len(hashes) or hashes[begin] not in held:
                continue
            end = _reach(hashes, begin, held, MEMORY | DISK)
            memory = _reach(hashes, begin, held, MEMORY)
            found[replica_id] = Beyond(memory - begin, end - memory)
        return found


def load_work(beyond: Beyond, use: TierUse | None, token_s: float) -> float:
    """What loading costs, in tokens of prefill. ``token_s``: seconds to prefill one (0: not
    known). Blocks on disk are brought into memory first."""
    memory_s = (use.memory_load_s if use else 0.0) or USUAL_MEMORY_LOAD_S
    disk_s = (use.disk_load_s if use else 0.0) or USUAL_DISK_LOAD_S
    seconds = (beyond.memory + beyond.disk) * memory_s + beyond.disk * disk_s
    return seconds / (token_s or USUAL_TOKEN_S)


def _reach(hashes: Sequence[int], begin: int, held: Mapping[int, int], tiers: int) -> int:
    """The end of the blocks from ``begin`` on that are in one of ``tiers``, by bisection."""
    low, high = begin, len(hashes)
    while low < high:
        middle = (low + high + 1) // 2
        if held.get(hashes[middle - 1], 0) & tiers:
            low = middle
        else:
            high = middle - 1
    return low
