"""Hashing as the replicas hash, and following their KV events over real ZMQ sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.prefixes import PromptHasher, salt_of
from deployments.gateway.sockets import KvEventFeed
from router.hashing import VllmHasher
from router.prefix_index import PrefixIndex
from router.types import KvFeed, ReplicaInfo
from weir.tenancy import Tenant

TOKENS = list(range(100))


def _info(feed: KvFeed | None, block_size: int = 16) -> ReplicaInfo:
    return ReplicaInfo("a", block_size=block_size, kv_events=feed is not None, kv_feed=feed)


def test_prompts_are_hashed_as_the_replicas_do() -> None:
    hasher = PromptHasher()
    assert hasher.keys(TOKENS, "s") == ()
    hasher.follow([_info(None), _info(KvFeed("e", None, "sha256", "7"), 32)])
    assert hasher.keys(TOKENS, "s") == VllmHasher(32, "sha256", "7").keys(TOKENS, "s")
    hasher.follow([])
    assert hasher.keys(TOKENS, "s") == ()


def test_tenants_have_blocks_of_their_own_unless_grouped() -> None:
    alone, other = Tenant("a"), Tenant("b")
    grouped, also = Tenant("a", prefix_group="g"), Tenant("b", prefix_group="g")
    assert salt_of(alone) != salt_of(other)
    assert salt_of(grouped) == salt_of(also) != salt_of(alone)


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.01)


async def test_the_index_follows_stored_and_removed_blocks() -> None:
    context = zmq.asyncio.Context()
    publisher = context.socket(zmq.PUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    feed = KvFeed(f"tcp://127.0.0.1:{port}", None, "sha256", "x")
    keys = VllmHasher(16, "sha256", "x").keys(TOKENS)
    index = PrefixIndex()
    index.add_replica("a", 1000)
    sequence = 0

    async def publish(event: dict[str, Any]) -> None:
        nonlocal sequence
        payload = msgspec.msgpack.encode([0.0, [event]])
        await publisher.send_multipart([b"kv", sequence.to_bytes(8, "big"), payload])
        sequence += 1

    following = asyncio.ensure_future(KvEventFeed().follow(index, _info(feed)))
    await asyncio.sleep(0.3)
    stored = {
        "type": "BlockStored",
        "block_hashes": list(keys),
        "parent_block_hash": None,
        "token_ids": TOKENS[:96],
        "block_size": 16,
    }
    await publish(stored)
    await _until(lambda: index.lookup(keys, 0.0) == {"a": 6})
    await publish({"type": "BlockRemoved", "block_hashes": list(keys[3:])})
    await _until(lambda: index.lookup(keys, 0.0) == {"a": 3})
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    publisher.close(linger=0)
    context.destroy(linger=0)


names = st.text(min_size=1, max_size=12)


@given(names, names, st.none() | names, st.none() | names)
def test_no_salt_of_a_client_opens_another_tenants_blocks(
    one: str, other: str, first: str | None, second: str | None
) -> None:
    salts = [salt_of(Tenant(tenant), own) for tenant, own in ((one, first), (other, second))]
    assert (salts[0] == salts[1]) is ((one, first) == (other, second))


def test_a_salt_cannot_be_written_so_that_it_reads_like_another_ones() -> None:
    victim = salt_of(Tenant("victim"), "x")
    for own in ("x:tenant:victim", "1:x", "own:1:x:tenant:victim", "tenant:victim"):
        assert salt_of(Tenant("thief"), own) not in (victim, salt_of(Tenant("victim")))
