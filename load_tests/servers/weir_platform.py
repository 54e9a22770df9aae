"""weir itself: the whole platform as ``weir up`` starts it, with everything on."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from load_tests.loadgen import Target
from load_tests.servers.process import Launch, Unavailable, free_port, http_ready
from load_tests.servers.workload import PROFILE, EngineWorkload
from weir.settings import Settings, load_settings, parse_settings
from weir.tenancy import hash_key, new_key

MODULE = "deployments.platform"


@dataclass(frozen=True, slots=True)
class Keys:
    """A tenant's key, and the token between the platform's own parts."""

    tenant: str
    internal: str


def weir_platform(
    workload: EngineWorkload,
    replicas: int,
    folder: Path,
    *,
    targets: Mapping[str, float] | None = None,
    sections: Mapping[str, Any] | None = None,
    **model: Any,
) -> tuple[list[Launch], Target]:
    """The platform with ``replicas`` replicas of the workload's model; ``folder`` gets its state.
    ``model`` changes more of the model's settings, ``targets`` (``ttft_slo_ms``, ``tpot_slo_ms``)
    those of all classes, ``sections`` other sections of the tree.

    Raises:
        Unavailable: this checkout has no platform to start.
    """
    return _platform(workload, {"replicas": replicas, **model}, folder, targets, sections)


def weir_gateway(
    workload: EngineWorkload,
    interval_ms: float,
    folder: Path,
    replicas: int = 1,
    *,
    sections: Mapping[str, Any] | None = None,
) -> tuple[list[Launch], Target]:
    """The same platform, whose replicas have no engine and only emit chunks: the gateway alone
    behind its front door. Everything a request passes on its way is there.

    Raises:
        Unavailable: this checkout has no platform to start.
    """
    engine = {"mode": "stub", "args": {"interval_ms": interval_ms}}
    return _platform(workload, {"replicas": replicas, "engine": engine}, folder, None, sections)


def _platform(
    workload: EngineWorkload,
    model: Mapping[str, Any],
    folder: Path,
    targets: Mapping[str, float] | None = None,
    sections: Mapping[str, Any] | None = None,
) -> tuple[list[Launch], Target]:
    if find_spec(MODULE) is None:
        raise Unavailable(f"this checkout has no {MODULE}")
    keys = Keys(new_key(), secrets.token_urlsafe(24))
    port = free_port()
    settings = platform_settings(workload, model, port, keys, targets or {}, sections or {})
    state = write_state(settings, keys, folder)
    command = [sys.executable, "-P", "-m", MODULE, "--settings", str(state / "settings.yaml")]
    command += ["--state", str(state)]
    env = {"WEIR_INTERNAL_TOKEN": keys.internal}
    ready = http_ready(port, "/ready")
    launch = Launch("weir", command, ready, env, stop_timeout_s=60)
    return [launch], Target("127.0.0.1", port, headers=(authorization(keys),))


def platform_settings(
    workload: EngineWorkload,
    changes: Mapping[str, Any],
    port: int,
    keys: Keys,
    targets: Mapping[str, float] = MappingProxyType({}),
    sections: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """The laptop profile with the workload's model and ``changes`` to it, on free ports, for one
    tenant; ``targets`` of all classes; ``sections``: changes to other sections of the tree."""
    profile = load_settings(PROFILE)
    model = profile.models[0].model_dump(mode="json")
    alone = {"name": workload.served_name, "source": str(workload.model), "fallback": None}
    model |= {**alone, **changes}
    overlay: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": port},
        "redis": {"port": free_port()},
        "models": [model],
        "tenants": [{"id": "bench", "key_sha256": [hash_key(keys.tenant)], "retention_days": 1}],
        **sections,
    }
    tree = profile.model_dump(mode="json")
    for section, values in overlay.items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
    for each in tree["admission"]["classes"].values():
        each.update(targets)
    return parse_settings(tree, "the bench's settings")


def write_state(settings: Settings, keys: Keys, folder: Path) -> Path:
    """A state folder as ``weir up`` lays it out."""
    state = folder / "state"
    state.mkdir()
    tree = settings.model_dump(mode="json")
    secret = {"demo_key": keys.tenant, "internal_token": keys.internal}
    for name, text in (
        ("settings.yaml", yaml.safe_dump(tree, sort_keys=False)),
        ("secrets.json", json.dumps(secret)),
    ):
        file = state / name
        file.touch(mode=0o600)
        file.write_text(text, "utf-8")
    return state


def authorization(keys: Keys) -> tuple[str, str]:
    """The tenant's header."""
    return "Authorization", f"Bearer {keys.tenant}"
