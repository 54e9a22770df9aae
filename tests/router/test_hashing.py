"""Block hashes: the properties a prefix index needs, and vLLM's own values."""

from __future__ import annotations

import hashlib
import random

import pytest

from router.hashing import (
    DEFAULT_SEED,
    KEY_MASK,
    BlockHasher,
    VllmHasher,
    block_key,
    cache_salt,
)

IDS = [random.Random(3).randrange(0, 200_000) for _ in range(16 * 6 + 5)]
HASHERS: list[BlockHasher] = [
    VllmHasher(16),
    VllmHasher(16, "sha256_cbor"),
]


@pytest.mark.parametrize("hasher", HASHERS, ids=["sha256", "sha256_cbor"])
class TestAnyHasher:
    def test_only_full_blocks_have_keys(self, hasher: BlockHasher) -> None:
        assert len(hasher.keys(IDS)) == 6
        assert hasher.keys(IDS[:15]) == ()
        assert hasher.keys([]) == ()

    def test_a_key_names_its_whole_prefix(self, hasher: BlockHasher) -> None:
        changed = [IDS[0] + 1, *IDS[1:]]
        assert hasher.keys(IDS[:48]) == hasher.keys(IDS)[:3]
        assert not set(hasher.keys(changed)) & set(hasher.keys(IDS))

    def test_salt_and_adapter_separate(self, hasher: BlockHasher) -> None:
        variants = [
            hasher.keys(IDS),
            hasher.keys(IDS, salt="a"),
            hasher.keys(IDS, salt="b"),
            hasher.keys(IDS, adapter="c"),
            hasher.keys(IDS, salt="a", adapter="c"),
        ]
        assert len({key for keys in variants for key in keys}) == 6 * len(variants)

    def test_keys_fit_two_digits_of_an_int(self, hasher: BlockHasher) -> None:
        assert all(0 <= key <= KEY_MASK for key in hasher.keys(IDS))


def test_tenants_share_only_within_a_named_group() -> None:
    assert cache_salt("a") != cache_salt("b")
    assert cache_salt("a", "docs") == cache_salt("b", "docs")
    assert cache_salt("docs") != cache_salt("a", "docs")


def test_block_key_is_the_same_for_digest_and_event_number() -> None:
    digest = hashlib.sha256(b"x").digest()
    number = int.from_bytes(digest, "big") & ((1 << 64) - 1)
    assert block_key(digest) == block_key(number)


@pytest.mark.parametrize("size", [0, -1])
def test_block_size_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match="block_size"):
        VllmHasher(size)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["sha256", "sha256_cbor"])
@pytest.mark.parametrize(("salt", "adapter"), [(None, None), ("s", None), (None, "l"), ("s", "l")])
def test_equals_vllm(
    algorithm: str, salt: str | None, adapter: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = pytest.importorskip("vllm.v1.core.kv_cache_utils")
    from vllm.utils.hashing import get_hash_fn_by_name

    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    function = get_hash_fn_by_name(algorithm)
    kv.init_none_hash(function)
    assert kv.DEFAULT_NONE_HASH_SEED == DEFAULT_SEED
    # Small, one-byte, two-byte and four-byte ids, all in one block.
    ids = [0, 23, 24, 255, 256, 65535, 65536, 199_999, *IDS]
    parent, expected = None, []
    for start in range(0, len(ids) - 15, 16):
        keys = [adapter] if adapter else []
        keys += [salt] if salt and start == 0 else []
        block = ids[start : start + 16]
        parent = kv.hash_block_tokens(function, parent, block, tuple(keys) or None)
        expected.append(parent)
    hasher = VllmHasher(16, algorithm)  # type: ignore[arg-type]
    assert hasher.digests(ids, salt, adapter) == expected
    assert list(hasher.keys(ids, salt, adapter)) == [
        kv.maybe_convert_block_hash(digest) & KEY_MASK for digest in expected
    ]
