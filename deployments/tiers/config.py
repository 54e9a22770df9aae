"""vLLM's configuration for a pool's tiers. Imports no vLLM: settings are checked without it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from weir.settings import ModelSettings

SPEC, SPEC_MODULE = "TieredSpec", "deployments.tiers.spec"
#: What :class:`deployments.tiers.spec.TieredSpec` is told of the disk; absent without one.
DISK = "weir_disk"
#: Arguments that change nothing about what is in a KV block.
_HARMLESS = {
    "enable_auto_tool_choice",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "reasoning_parser",
    "scheduling_policy",
    "structured_outputs_config",
    "tool_call_parser",
}


def tiers_transfer(model: ModelSettings, pool: str) -> dict[str, Any] | None:
    """vLLM's ``kv_transfer_config`` for a model as a pool serves it; None: it has no tiers.

    Blocks move by vLLM's offloading connector. On an accelerator its worker and its memory tier
    are vLLM's own; on a CPU, where those refuse to run, the worker is weir's.
    """
    tiers = model.engine.kv_tiers
    if tiers is None:
        return None
    extra: dict[str, Any] = {
        "spec_name": SPEC,
        "spec_module_path": SPEC_MODULE,
        "cpu_bytes_to_use": tiers.memory_bytes,
        "eviction_policy": "lru",
    }
    if tiers.disk_folder is not None:
        extra[DISK] = {
            "folder": str(disk_folder(tiers.disk_folder, model.name, pool)),
            "max_bytes": tiers.disk_bytes,
            "engine": _engine_digest(model),
        }
    return {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": extra,
    }


def disk_folder(root: str, model: str, pool: str) -> Path:
    """Where a pool's replicas have their files, and nobody else."""
    name = f"{model}:{pool}"
    # Names may have slashes; two names never make the same folder. None has a colon.
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return Path(root) / f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _engine_digest(model: ModelSettings) -> str:
    args = {key: value for key, value in model.engine.args.items() if key not in _HARMLESS}
    told = [args, model.engine.env, model.parallel.engine_args(), model.accelerator]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
