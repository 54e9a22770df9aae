"""What the gateway knows of the replicas' KV caches: hashes of prompts, events of replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from router.hashing import VllmHasher, cache_salt
from router.kv_events import EventStream
from router.kv_subscriber import KvEndpoints, KvEventSubscriber
from router.prefix_index import PrefixIndex
from router.types import KvFeed, ReplicaInfo
from weir.tenancy import Tenant

_LOG = logging.getLogger("weir.gateway")
_FOLLOW_AGAIN_S = 1.0


def salt_of(tenant: Tenant) -> str:
    """Part of every block hash, here and in the engine, so that tenants never share blocks
    unless settings put them into one prefix group."""
    return cache_salt(tenant.id, tenant.prefix_group)


class PromptHasher:
    """KV block keys of prompts, as the replicas' engines make them; none while there are none."""

    def __init__(self) -> None:
        self._made_for: tuple[int, KvFeed] | None = None
        self._hasher: VllmHasher | None = None

    def follow(self, members: Iterable[ReplicaInfo]) -> None:
        """Hash as these replicas do (replicas of one model agree)."""
        for info in members:
            if info.kv_feed is None:
                continue
            if self._made_for != (info.block_size, info.kv_feed):
                feed = info.kv_feed
                algorithm = "sha256_cbor" if feed.algorithm == "sha256_cbor" else "sha256"
                self._hasher = VllmHasher(info.block_size, algorithm, feed.seed)  # type: ignore[arg-type]
                self._made_for = (info.block_size, feed)
            return
        self._hasher, self._made_for = None, None

    def keys(self, tokens: Sequence[int], salt: str) -> tuple[int, ...]:
        """One key per full block of the prompt."""
        return self._hasher.keys(tokens, salt) if self._hasher is not None else ()


class CacheFollower:
    """One task per replica that keeps the index in step with the replica's KV events."""

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def follow(self, members: Iterable[ReplicaInfo]) -> None:
        """Follow these replicas, and no others any more."""
        feeds = {info.replica_id: info for info in members if info.kv_feed is not None}
        for gone in self._tasks.keys() - feeds.keys():
            await _end(self._tasks.pop(gone))
        for replica_id, info in feeds.items():
            if replica_id not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._run(info))
                self._tasks[replica_id] = task

    async def close(self) -> None:
        """Follow nobody."""
        await self.follow(())

    async def _run(self, info: ReplicaInfo) -> None:
        assert info.kv_feed is not None
        endpoints = KvEndpoints(info.kv_feed.events, info.kv_feed.replay)
        while True:
            stream = EventStream(self._index, info.replica_id, info.block_size)
            try:
                await KvEventSubscriber(stream, endpoints).run()
            except Exception:  # noqa: BLE001 - a feed that breaks must not end the gateway
                _LOG.exception("KV events lost", extra={"replica": info.replica_id})
                stream.lost()
            await asyncio.sleep(_FOLLOW_AGAIN_S)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
