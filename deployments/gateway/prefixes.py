"""KV block hashes of prompts, as the replicas' engines make them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.hashing import VllmHasher, cache_salt
from router.types import KvFeed, ReplicaInfo
from weir.tenancy import Tenant


def salt_of(tenant: Tenant, own: str | None = None) -> str:
    """Part of every block hash, here and in the engine, so that tenants never share blocks
    unless settings put them into one prefix group. ``own``: the ``cache_salt`` of the request,
    which keeps a tenant's users apart; it only ever parts, whatever text it is."""
    salt = cache_salt(tenant.id, tenant.prefix_group)
    # With its length in front no other salt of anybody can read the same.
    return salt if own is None else f"own:{len(own)}:{own}:{salt}"


class PromptHasher:
    """KV block keys of prompts; none while there are no replicas that tell of their caches."""

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

    def keys(self, tokens: Sequence[int], salt: str, adapter: str | None = None) -> tuple[int, ...]:
        """One key per full block of the prompt. ``adapter``: the key of the LoRA adapter with which
        the engine computes it."""
        return self._hasher.keys(tokens, salt, adapter) if self._hasher is not None else ()
