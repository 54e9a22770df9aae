"""The engine's KV events: decoding, sequence and gaps, and the subscriber that feeds the index.

vLLM publishes over ZMQ ``(topic, 8-byte big-endian sequence, msgpack [ts, [events], dp_rank?])``;
events are maps tagged ``type``: BlockStored, BlockRemoved, AllBlocksCleared. A ROUTER socket
replays from its buffer: ask with a sequence number, answers end with sequence -1 (facts measured
on vLLM 0.29). Subscribing is lossy, so three layers:

- :func:`decode` is pure: frames → :class:`EventBatch`;
- :class:`EventStream` is pure: batches in, what is known of the replica into the index; it finds
  gaps and publisher restarts, and says from where to replay;
- :class:`KvEventSubscriber` is the I/O: SUB socket, reconnects, replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from router.hashing import block_key
from router.tiers import MEDIUMS, TierIndex

_Hash = int | bytes
_DEVICE = "GPU"


class BlockStored(msgspec.Struct, tag=True, gc=False):
    """The fields of vLLM's event that matter here; the others are skipped unread."""

    block_hashes: list[_Hash]
    parent_block_hash: _Hash | None
    block_size: int
    medium: str | None = None
    group_idx: int | None = None


class BlockRemoved(msgspec.Struct, tag=True, gc=False):
    """Blocks left the cache."""

    block_hashes: list[_Hash]
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, tag=True, gc=False):
    """The cache was reset."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


class _Payload(msgspec.Struct, array_like=True, gc=False):
    ts: float
    events: list[Event]


_DECODER = msgspec.msgpack.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """One message. ``events`` None: it could not be read, so anything may have happened."""

    seq: int
    ts: float
    events: tuple[Event, ...] | None


def decode(frames: Sequence[bytes]) -> EventBatch | None:
    """``(topic, sequence, payload)`` → batch; None for the marker that ends a replay.

    Raises:
        ValueError: the frames are not a message of this protocol at all.
    """
    if len(frames) != 3 or len(frames[1]) != 8:
        raise ValueError(f"not a KV event message: {[len(frame) for frame in frames]} bytes")
    seq = int.from_bytes(frames[1], "big", signed=True)
    if seq < 0:
        return None
    try:
        payload = _DECODER.decode(frames[2])
    except msgspec.DecodeError:
        return EventBatch(seq, 0.0, None)
    return EventBatch(seq, payload.ts, tuple(payload.events))


class Index(Protocol):
    """What of the prefix index is fed; :class:`router.prefix_index.PrefixIndex` is one."""

    def stored(self, replica_id: str, hashes: Sequence[int], parent: int | None = None) -> None: ...

    def removed(self, replica_id: str, hashes: Sequence[int]) -> None: ...

    def cleared(self, replica_id: str) -> None: ...

    def mark_stale(self, replica_id: str) -> None: ...

    def resynced(self, replica_id: str) -> None: ...

    @property
    def tiers(self) -> TierIndex: ...


class EventStream:
    """One replica's events in order. Pure: feed it batches, do what it answers.

    Only blocks in device memory, of cache group 0 and of ``block_size`` tokens count; other groups
    of a hybrid model and partial blocks are not what a prefix hit on the device needs. Copies in
    host memory or on disk go to the index's ``tiers``.
    """

    def __init__(self, index: Index, replica_id: str, block_size: int) -> None:
        self._index = index
        self._replica_id = replica_id
        self._block_size = block_size
        self._next = 0
        self._last_ts = 0.0
        self._last_live = -1
        self.batches = 0
        self.gaps = 0
        self.rebuilds = 0
        self.unreadable = 0

    @property
    def replay_from(self) -> int:
        """Sequence to ask a replay from: the last one known again, to see that it is the same
        publisher still."""
        return max(0, self._next - 1)

    def live(self, batch: EventBatch) -> bool:
        """A batch from the subscription. False: something is missing; it was not applied, the
        replica is stale; replay (:meth:`replayed`) or give up (:meth:`restart`)."""
        restarted = batch.seq <= self._last_live
        self._last_live = batch.seq
        if not restarted and batch.seq < self._next:
            return True  # a replay had it already
        if restarted or batch.seq > self._next:
            self.gaps += 1
            self.lost()
            return False
        self._apply(batch)
        return True

    def lost(self) -> None:
        """The connection broke: nothing is claimed of this replica until it is in order again."""
        self._index.mark_stale(self._replica_id)

    def replayed(self, batches: Sequence[EventBatch]) -> bool:
        """The answer to a replay from :attr:`replay_from`. False: it does not continue what we
        know (the publisher restarted, or its buffer is too short); replay from 0 and
        :meth:`rebuild`."""
        if self._next:
            first = batches[0] if batches else None
            if first is None or first.seq != self._next - 1 or first.ts != self._last_ts:
                return False
            batches = batches[1:]
        elif batches and batches[0].seq != 0:
            return False
        for batch in batches:
            self._apply(batch)
        self._index.resynced(self._replica_id)
        return True

    def rebuild(self, batches: Sequence[EventBatch]) -> None:
        """Begin anew from all that the publisher still remembers. What was stored before that
        is not known any more, which under-claims."""
        self.rebuilds += 1
        self._forget()
        self._next = 0
        for batch in batches:
            self._apply(batch)

    def restart(self, batch: EventBatch | None = None) -> None:
        """No replay can be had: begin anew with ``batch``."""
        self.rebuild([batch] if batch is not None else [])

    def _apply(self, batch: EventBatch) -> None:
        self.batches += 1
        self._next, self._last_ts = batch.seq + 1, batch.ts
        if batch.events is None:
            self.unreadable += 1
            self._forget()
            return
        removed: list[int] = []
        for event in batch.events:
            if isinstance(event, BlockRemoved):
                # Engines send one event a block: together they cost a third.
                if self._counts(event):
                    removed += map(block_key, event.block_hashes)
                elif tier := MEDIUMS.get(event.medium):
                    self._tiered(event, tier)
                continue
            if removed:
                self._index.removed(self._replica_id, removed)
                removed = []
            self._apply_other(event)
        if removed:
            self._index.removed(self._replica_id, removed)

    def _apply_other(self, event: BlockStored | AllBlocksCleared) -> None:
        if isinstance(event, AllBlocksCleared):
            self._index.cleared(self._replica_id)
        elif self._counts(event) and event.block_size == self._block_size:
            keys = [block_key(block_hash) for block_hash in event.block_hashes]
            parent = event.parent_block_hash
            self._index.stored(
                self._replica_id, keys, None if parent is None else block_key(parent)
            )
        elif tier := MEDIUMS.get(event.medium):
            self._tiered(event, tier)

    def _tiered(self, event: BlockStored | BlockRemoved, tier: int) -> None:
        """Something changed outside the device's memory."""
        if event.group_idx not in (None, 0):
            return
        tiers = self._index.tiers
        change = tiers.stored if isinstance(event, BlockStored) else tiers.removed
        change(self._replica_id, [block_key(each) for each in event.block_hashes], tier)

    def _forget(self) -> None:
        self._index.cleared(self._replica_id)
        self._index.tiers.forget(self._replica_id)

    def _counts(self, event: BlockStored | BlockRemoved) -> bool:
        return event.medium in (None, _DEVICE) and event.group_idx in (None, 0)
