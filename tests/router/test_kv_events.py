"""KV events: decoding, gaps, restarts, and the subscriber against a publisher like vLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from router.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, EventStream, decode
from router.kv_subscriber import KvEndpoints, KvEventSubscriber
from router.prefix_index import PrefixIndex

END = (-1).to_bytes(8, "big", signed=True)


def stored(hashes: list[Any], parent: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": [1, 2, 3],
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **more,
    }


def removed(hashes: list[Any], **more: Any) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU", **more}


CLEARED = {"type": "AllBlocksCleared"}


def payload(ts: float, events: Iterable[dict[str, Any]]) -> bytes:
    return msgspec.msgpack.encode([ts, list(events), 0])


def frames(seq: int, *events: dict[str, Any], ts: float | None = None) -> list[bytes]:
    return [b"kv", seq.to_bytes(8, "big"), payload(seq if ts is None else ts, events)]


def batch(seq: int, *events: dict[str, Any], ts: float | None = None) -> Any:
    return decode(frames(seq, *events, ts=ts))


def stream() -> tuple[PrefixIndex, EventStream]:
    index = PrefixIndex()
    index.add_replica("r", 1000)
    return index, EventStream(index, "r", 16)


def held(index: PrefixIndex, *hashes: int) -> int:
    return index.lookup(hashes, 0.0).get("r", 0)


class TestDecode:
    def test_the_three_events(self) -> None:
        big = (1 << 64) - 1
        got = batch(7, stored([1, big], parent=5), removed([b"\x01" * 32]), CLEARED)
        assert (got.seq, got.ts) == (7, 7.0)
        one, two, three = got.events
        assert isinstance(one, BlockStored)
        assert (one.block_hashes, one.parent_block_hash, one.block_size) == ([1, big], 5, 16)
        assert isinstance(two, BlockRemoved)
        assert two.block_hashes == [b"\x01" * 32]
        assert isinstance(three, AllBlocksCleared)

    def test_the_end_of_a_replay(self) -> None:
        assert decode([b"", END, b""]) is None

    @pytest.mark.parametrize(
        "bad", [b"", b"\xc1", msgspec.msgpack.encode([1.0, [{"type": "New"}]])]
    )
    def test_an_unreadable_payload_may_mean_anything(self, bad: bytes) -> None:
        got = decode([b"kv", (3).to_bytes(8, "big"), bad])
        assert got is not None
        assert got.events is None

    @pytest.mark.parametrize("bad", [[], [b"kv", b"\0" * 8], [b"kv", b"\0" * 7, b""]])
    def test_other_frames_are_refused(self, bad: list[bytes]) -> None:
        with pytest.raises(ValueError, match="not a KV event message"):
            decode(bad)


class TestStream:
    def test_in_order(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1, 2])))
        assert events.live(batch(1, stored([3], parent=2)))
        assert held(index, 1, 2, 3) == 3
        assert events.live(batch(2, removed([3])))
        assert held(index, 1, 2, 3) == 2

    def test_only_device_blocks_of_the_right_group_and_size(self) -> None:
        index, events = stream()
        other = [
            stored([1], medium="CPU"),
            stored([1], group_idx=1),
            stored([1], block_size=4),
        ]
        assert events.live(batch(0, *other))
        assert held(index, 1) == 0
        assert events.live(batch(1, stored([1], group_idx=0), removed([1], medium="CPU")))
        assert held(index, 1) == 1

    def test_a_gap_claims_nothing_until_replayed(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1, 2])))
        assert not events.live(batch(2, stored([4])))
        assert held(index, 1, 2) == 0
        assert events.replay_from == 0
        missing = [batch(0, stored([1, 2])), batch(1, removed([2])), batch(2, stored([4]))]
        assert events.replayed([*missing, batch(3, stored([5], parent=4))])
        assert (held(index, 1, 2), held(index, 4, 5)) == (1, 2)
        assert events.live(batch(3, stored([5], parent=4))), "replayed while it was on its way"
        assert events.live(batch(4, removed([4])))
        assert held(index, 4) == 0

    def test_a_buffer_that_is_too_short_begins_anew(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1, 2])))
        assert not events.live(batch(9, stored([4])))
        assert not events.replayed([batch(8, stored([3])), batch(9, stored([4]))])
        events.rebuild([batch(8, stored([3])), batch(9, stored([4]))])
        assert (held(index, 1, 2), held(index, 3), held(index, 4)) == (0, 1, 1)
        assert events.rebuilds == 1

    def test_a_restarted_publisher_is_known_by_its_sequence(self) -> None:
        index, events = stream()
        for seq in range(5):
            assert events.live(batch(seq, stored([seq + 10])))
        assert not events.live(batch(0, stored([1]), ts=99.0))
        assert held(index, 10) == 0

    def test_a_restarted_publisher_is_known_by_its_time(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1])))
        events.lost()
        assert held(index, 1) == 0
        assert not events.replayed([batch(0, stored([2]), ts=99.0)])
        events.rebuild([batch(0, stored([2]), ts=99.0)])
        assert (held(index, 1), held(index, 2)) == (0, 1)

    def test_without_replay_it_begins_anew(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1])))
        late = batch(5, stored([2]))
        assert not events.live(late)
        events.restart(late)
        assert (held(index, 1), held(index, 2)) == (0, 1)
        assert events.live(batch(6, stored([3], parent=2)))
        assert held(index, 2, 3) == 2

    def test_an_unreadable_batch_forgets_everything(self) -> None:
        index, events = stream()
        assert events.live(batch(0, stored([1])))
        unreadable = decode([b"kv", (1).to_bytes(8, "big"), b"\xc1"])
        assert unreadable is not None
        assert events.live(unreadable)
        assert held(index, 1) == 0
        assert events.unreadable == 1

    @given(
        history=st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=30),
        lost=st.sets(st.integers(0, 29)),
        buffer=st.integers(1, 30),
    )
    def test_whatever_is_lost_the_claims_are_true(
        self, history: list[tuple[bool, int]], lost: set[int], buffer: int
    ) -> None:
        """Some live batches vanish; the publisher replays its last ``buffer`` ones."""
        index, events = stream()
        truth: set[int] = set()
        sent: list[Any] = []
        for seq, (is_stored, block) in enumerate(history):
            sent.append(batch(seq, stored([block]) if is_stored else removed([block])))
            (truth.add if is_stored else truth.discard)(block)
            if seq in lost:
                continue
            if not events.live(sent[-1]):
                kept = sent[-buffer:]
                if not events.replayed([b for b in kept if b.seq >= events.replay_from]):
                    events.rebuild(kept)
            claimed = {h for h in range(1, 7) if held(index, h)}
            assert claimed <= truth
            if buffer > len(history):
                assert claimed == truth


class Publisher:
    """vLLM's ZmqEventPublisher in miniature: PUB and ROUTER, a buffer of what was sent."""

    def __init__(self, context: zmq.asyncio.Context, events: str, replay: str) -> None:
        self.pub = context.socket(zmq.PUB)
        self.router = context.socket(zmq.ROUTER)
        self.pub.bind(events)
        self.router.bind(replay)
        self.buffer: list[list[bytes]] = []
        self.replays = 0
        self.task = asyncio.create_task(self._serve())

    async def publish(self, *events: dict[str, Any], send: bool = True) -> None:
        self.buffer.append(frames(len(self.buffer), *events))
        if send:
            await self.pub.send_multipart(self.buffer[-1])

    async def _serve(self) -> None:
        while True:
            client, _, start = await self.router.recv_multipart()
            self.replays += 1
            for topic, seq, data in self.buffer:
                if seq >= start:
                    await self.router.send_multipart([client, b"", topic, seq, data])
            await self.router.send_multipart([client, b"", b"", END, b""])

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.pub.close(linger=0)
        self.router.close(linger=0)


def free_endpoints() -> tuple[str, str]:
    with zmq.Context() as context, context.socket(zmq.PUB) as a, context.socket(zmq.PUB) as b:
        ports = [s.bind_to_random_port("tcp://127.0.0.1") for s in (a, b)]
    return f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}"


@asynccontextmanager
async def running(subscriber: KvEventSubscriber) -> AsyncIterator[None]:
    task = asyncio.create_task(subscriber.run())
    try:
        yield
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the index has nobody to tell
            await asyncio.sleep(0.01)


class TestSubscriber:
    async def test_history_live_loss_and_restart(self) -> None:
        index, events = stream()
        where = free_endpoints()
        context = zmq.asyncio.Context()
        publisher = Publisher(context, *where)
        subscriber = KvEventSubscriber(events, KvEndpoints(*where), idle_check_s=0.2)
        try:
            await publisher.publish(stored([1, 2]))
            async with running(subscriber):
                await until(lambda: held(index, 1, 2) == 2)  # sent before we came
                await publisher.publish(stored([3], parent=2))
                await until(lambda: held(index, 1, 2, 3) == 3)
                await publisher.publish(removed([3]), send=False)
                await publisher.publish(stored([9]))
                await until(lambda: held(index, 9) == 1)
                assert held(index, 1, 2, 3) == 2
                await publisher.publish(removed([2]), send=False)
                await until(lambda: held(index, 1, 2) == 1)  # found by the idle check
                await publisher.close()
                await until(lambda: held(index, 1) == 0)  # disconnected: stale
                publisher = Publisher(context, *where)
                await publisher.publish(stored([5]))
                await until(lambda: held(index, 5) == 1)
                assert held(index, 1) == 0
        finally:
            await publisher.close()
            context.destroy(linger=0)

    async def test_without_replay_a_late_joiner_learns_from_now_on(self) -> None:
        index, events = stream()
        where = free_endpoints()
        context = zmq.asyncio.Context()
        publisher = Publisher(context, *where)
        subscriber = KvEventSubscriber(events, KvEndpoints(where[0]))
        try:
            await publisher.publish(stored([1]))
            async with running(subscriber):
                async with asyncio.timeout(20):
                    while not held(index, 2):
                        await publisher.publish(stored([2]))
                        await asyncio.sleep(0.02)
                assert held(index, 1) == 0
                assert publisher.replays == 0
                assert subscriber.replays_failed == 0
        finally:
            await publisher.close()
            context.destroy(linger=0)

    async def test_a_replay_that_never_answers_times_out(self) -> None:
        index, events = stream()
        where = free_endpoints()
        context = zmq.asyncio.Context()
        publisher = Publisher(context, where[0], free_endpoints()[0])
        subscriber = KvEventSubscriber(
            events, KvEndpoints(*where), replay_timeout_s=0.05, idle_check_s=30.0
        )
        try:
            async with running(subscriber):
                async with asyncio.timeout(20):
                    while not held(index, 2):
                        await publisher.publish(stored([2]))
                        await asyncio.sleep(0.02)
                assert subscriber.replays_failed >= 1
        finally:
            await publisher.close()
            context.destroy(linger=0)
