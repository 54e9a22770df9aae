"""When Serve may leave a replica alone.

Serve restarts the replicas of a deployment whose version has changed, and makes a new version up
at every deploy unless it is given one: each ``weir apply`` would restart every replica of every
model. A version here is a digest of what a replica is made from. How many there are is no part of
that, so scaling one deployment leaves all others, and its own replicas that stay, as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.pools import Pool
from weir import __version__
from weir.settings import Settings

_COUNTS = {"replicas", "autoscaling"}
# Each pool is a deployment, with a version of its own; prices are the gateways'.
_ELSEWHERE = _COUNTS | {"pools", "price"}
_UNUSED = {"data": 1, "experts": False}  # what is not used says nothing
#: Requests bring them: a new one restarts no replica whose slots can hold it.
_ADAPTERS = {"adapters", "adapter_slots", "on_cold_adapter"}


def gateway_version(view: Settings, adapters: Mapping[str, Mapping[str, str]]) -> str:
    """``view``: the settings that gateways are given, of which they learn the tenants anew while
    they run; ``adapters``: of each model, the versions of its adapters' files."""
    return _digest(view.model_dump(mode="json", exclude={"tenants"}), adapters)


def model_version(
    pool: Pool,
    settings: Settings,
    sources: list[str],
    adapter_arguments: dict[str, Any] | None = None,
) -> str:
    """``adapter_arguments``: what adapters make of the engine. ``sources``: where the files of the
    model, and of its draft, are; new files in the same folder are a new version."""
    tree = pool.model.model_dump(mode="json", exclude=_ELSEWHERE | _ADAPTERS)
    parallel = tree["parallel"]
    if not tree["engine"]["kv_tiers"]:
        del tree["engine"]["kv_tiers"]
    tree["parallel"] = {key: parallel[key] for key in parallel if parallel[key] != _UNUSED.get(key)}
    named: list[Any] = []
    if pool.name:
        named.append([pool.name, pool.role, pool.spot, pool.kv_transfer()])
    if pool.notices:
        named.append(pool.notices.model_dump(mode="json"))
    written = [[each, _written(each)] for each in sources]
    told: list[Any] = [adapter_arguments] if adapter_arguments else []
    if (endpoint := settings.tracing.engine_endpoint) is not None:
        told.append([endpoint, settings.tracing.protocol, settings.tracing.service_name])
    return _digest(tree, settings.log.model_dump(mode="json"), written, *named, *told)


def _written(source: str) -> float:
    folder = Path(source)
    if not folder.is_dir():
        return 0.0
    return max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)


def _digest(*parts: Any) -> str:
    text = json.dumps([__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
