"""KV block hashes: vLLM's own, reproduced.

A block's hash covers its parent's hash, its token ids and its extra keys (adapter name; in the
first block also the cache salt), so it names the whole prefix. vLLM 0.29 computes
``sha256(serialise((parent, ids, extra)))`` with pickle ("sha256", its default) or CBOR
("sha256_cbor"), the root being the hash of a seed string; its KV events carry the low 64 bits.
weir keeps the low 60 of those as the block's *key*: CPython stores an int below 2**60 in 32 bytes,
a 64-bit one in 48.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

KEY_BITS = 60
KEY_MASK = (1 << KEY_BITS) - 1
#: vLLM's seed of the root hash when PYTHONHASHSEED is not set.
DEFAULT_SEED = "vllm-none-hash"

Algorithm = Literal["sha256", "sha256_cbor"]
_Extra = tuple[str, ...] | None
_Serialise = Callable[[bytes, tuple[int, ...], _Extra], bytes]


def block_key(block_hash: int | bytes) -> int:
    """The key of a block hash: a whole digest, or the 64-bit number that KV events carry."""
    if isinstance(block_hash, bytes):
        block_hash = int.from_bytes(block_hash[-8:], "big")
    return block_hash & KEY_MASK


def cache_salt(tenant: str, shared_group: str | None = None) -> str:
    """The salt of a tenant's prompts, to be sent to the engine as ``cache_salt`` too.

    Tenants never share blocks, unless settings put them into the same prefix group. The colon
    keeps salts apart from adapter names, which vLLM hashes into the same place.
    """
    return f"tenant:{tenant}" if shared_group is None else f"group:{shared_group}"


class BlockHasher(Protocol):
    """Keys of a prompt's full blocks, first to last."""

    def keys(
        self, token_ids: Sequence[int], salt: str | None = None, adapter: str | None = None
    ) -> tuple[int, ...]:
        """One key below 2**60 per full block; the incomplete last block has none."""
        ...


class VllmHasher:
    """What vLLM 0.29 itself computes (text prompts; images and prompt embeddings have extra keys
    that only the engine knows).

    ``seed``: the engine's PYTHONHASHSEED where that is set.
    """

    def __init__(
        self, block_size: int, algorithm: Algorithm = "sha256", seed: str = DEFAULT_SEED
    ) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be positive, not {block_size}")
        self._block_size = block_size
        self._serialise: _Serialise = _pickle if algorithm == "sha256" else _CborBlocks()
        root = _pickled(seed) if algorithm == "sha256" else _cbor_text(seed)
        self._root = hashlib.sha256(root).digest()

    def keys(
        self, token_ids: Sequence[int], salt: str | None = None, adapter: str | None = None
    ) -> tuple[int, ...]:
        """One key per full block. About 1 µs per block of 16 (pickle; CBOR 2)."""
        return tuple(
            int.from_bytes(digest[-8:], "big") & KEY_MASK
            for digest in self.digests(token_ids, salt, adapter)
        )

    def digests(
        self, token_ids: Sequence[int], salt: str | None = None, adapter: str | None = None
    ) -> list[bytes]:
        """The whole 32-byte hashes, as vLLM holds them."""
        size, serialise, sha256 = self._block_size, self._serialise, hashlib.sha256
        later: _Extra = (adapter,) if adapter else None
        extra = ((adapter,) if adapter else ()) + ((salt,) if salt else ()) or None
        parent, digests = self._root, []
        for start in range(0, len(token_ids) - size + 1, size):
            block = tuple(token_ids[start : start + size])
            parent = sha256(serialise(parent, block, extra)).digest()
            digests.append(parent)
            extra = later
        return digests


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _pickle(parent: bytes, block: tuple[int, ...], extra: _Extra) -> bytes:
    return _pickled((parent, block, extra))


class _CborBlocks:
    """Canonical CBOR (RFC 8949) of ``(parent, ids, extra)``; encoded ids are remembered."""

    def __init__(self) -> None:
        self._ids: dict[int, bytes] = {}

    def __call__(self, parent: bytes, block: tuple[int, ...], extra: _Extra) -> bytes:
        try:
            ids = b"".join(map(self._ids.__getitem__, block))
        except KeyError:
            for token in block:
                self._ids[token] = _cbor_head(0, token)
            ids = b"".join(map(self._ids.__getitem__, block))
        head = b"\x83" + _cbor_head(2, len(parent)) + parent + _cbor_head(4, len(block))
        if extra is None:
            return head + ids + b"\xf6"
        return head + ids + _cbor_head(4, len(extra)) + b"".join(map(_cbor_text, extra))


def _cbor_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << (8 * size):
            return bytes([major << 5 | code]) + value.to_bytes(size, "big")
    raise ValueError(f"{value} does not fit 64 bits")


def _cbor_text(text: str) -> bytes:
    encoded = text.encode()
    return _cbor_head(3, len(encoded)) + encoded
