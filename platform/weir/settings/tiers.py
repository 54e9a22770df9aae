"""Where a replica keeps KV blocks that its device has no room for: host memory, and a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from weir.settings.section import Finding, Section

#: Block hashes name files: two prompts must never have the same one, by accident or on purpose.
_HASHES = ("sha256", "sha256_cbor")
_LEAST_BYTES = 1 << 20


class KvTiersSettings(Section):
    """Of each replica: at most ``memory_bytes`` of host memory, taken at its start, and at most
    ``disk_bytes`` in one file of its own below ``disk_folder`` (null: memory only). What is on the
    disk outlives the replica."""

    memory_bytes: int = Field(ge=_LEAST_BYTES)
    disk_folder: str | None = Field(None, min_length=1)
    disk_bytes: int | None = Field(None, ge=_LEAST_BYTES)

    @field_validator("disk_folder")
    @classmethod
    def _is_absolute(cls, folder: str | None) -> str | None:
        if folder is not None and not PurePath(folder).is_absolute():
            raise ValueError(f"{folder!r} must be an absolute path: replicas run anywhere")
        return folder

    @model_validator(mode="after")
    def _disk_is_whole(self) -> Self:
        if (self.disk_folder is None) != (self.disk_bytes is None):
            raise ValueError("disk_folder and disk_bytes go together")
        return self


def tier_findings(
    tiers: KvTiersSettings | None, mode: str, args: Mapping[str, Any], copies: int, hands_off: bool
) -> Iterator[Finding]:
    """Why an engine cannot keep blocks in tiers, seen from the section that has the engine.

    ``copies``: pipeline stages times data-parallel copies of a replica. ``hands_off``: its KV
    blocks go to other replicas.
    """
    if tiers is None:
        return

    def finding(message: str) -> Finding:
        return Finding(("engine", "kv_tiers"), message)

    if mode == "stub":
        yield finding("a stub has no KV cache")
    if args.get("enable_prefix_caching") is False:
        yield finding("needs enable_prefix_caching, which engine.args turn off")
    if (algorithm := args.get("prefix_caching_hash_algo", "sha256")) not in _HASHES:
        yield finding(
            f"prefix_caching_hash_algo must be one of {', '.join(_HASHES)}, not {algorithm}: "
            "other hashes do not tell prompts apart for certain"
        )
    if copies > 1:
        yield finding("works with parallel.tensor, not with parallel.pipeline or parallel.data")
    if hands_off:
        yield finding(
            "a pool whose replicas hand KV blocks to others keeps none in tiers; "
            "give the model pools of role mixed only, or leave kv_tiers out"
        )
    if "kv_transfer_config" in args:
        yield finding("sets vLLM's kv_transfer_config; engine.args has one too")
