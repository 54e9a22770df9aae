"""From a command's flags to the settings that the platform runs with, and back to readable YAML."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from weir.cli.exits import CommandError, ExitCode
from weir.settings import Settings, TenantSettings, load_settings
from weir.settings.references import DEMO_TENANT
from weir.tenancy import hash_key

MASK = "***"
_SECRET_NAME = re.compile(r"(?:^|_)(?:token|secret|password|passwd|api_key|access_key)$", re.I)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class SettingsFlags:
    """What the command line says about settings; each one wins over the file."""

    profile: str = "laptop"
    config: Path | None = None
    model: str | None = None
    port: int | None = None
    redis_port: int | None = None


def effective_settings(flags: SettingsFlags) -> Settings:
    """Profile, then the file, then the flags.

    Raises:
        SettingsError: the settings cannot be used.
        CommandError: ``model`` is neither a directory nor an id, or ``redis_port`` is given and the
            settings use an external Redis.
    """
    overlay: dict[str, Any] = {}
    if flags.port is not None:
        overlay["server"] = {"port": flags.port}
    if flags.redis_port is not None:
        overlay["redis"] = {"port": flags.redis_port}
    if flags.model is not None:
        overlay["models"] = [_one_model(flags.model)]
    config = flags.config
    settings = load_settings(flags.profile, config, overlay)
    if flags.redis_port is not None and settings.redis.mode == "external":
        raise CommandError(
            "--redis-port: the settings use an external Redis (redis.mode)", ExitCode.USAGE
        )
    return with_absolute_sources(settings, config.absolute().parent if config else Path.cwd())


def with_demo_tenant(settings: Settings, demo_key: str) -> Settings:
    """Settings without tenants get one, so that the printed key works. Others stay as they are.
    Its responses are kept for a day, as OpenAI's clients expect it."""
    if settings.tenants:
        return settings
    demo = TenantSettings(id=DEMO_TENANT, key_sha256=(hash_key(demo_key),), retention_days=1)
    return settings.model_copy(update={"tenants": (demo,)})


def with_operators_key(settings: Settings, admin_key: str) -> Settings:
    """Settings that name no key for the admin API get one, so that the printed key works."""
    admin = settings.server.admin
    if admin.key_sha256 or admin.oidc:
        return settings
    admin = admin.model_copy(update={"key_sha256": (hash_key(admin_key),)})
    server = settings.server.model_copy(update={"admin": admin})
    return settings.model_copy(update={"server": server})


def holds_operators_key(settings: Settings, admin_key: str) -> bool:
    """Whether this key is the operator's."""
    return hash_key(admin_key) in settings.server.admin.key_sha256


def holds_key(settings: Settings, key: str) -> bool:
    """Whether some tenant has this key."""
    digest = hash_key(key)
    return any(digest in tenant.key_sha256 for tenant in settings.tenants)


def to_yaml(settings: Settings) -> str:
    """The whole tree; reading it back gives equal settings."""
    return _dump(settings.model_dump(mode="json"))


def to_masked_yaml(settings: Settings, environment: Mapping[str, str]) -> str:
    """The whole tree for people: secrets replaced by ``***``.

    ``WEIR_REDIS_URL`` of the environment wins over an external ``redis.url``, as it does when the
    platform runs.
    """
    tree = settings.model_dump(mode="json")
    if tree["redis"]["mode"] == "external":
        tree["redis"]["url"] = environment.get("WEIR_REDIS_URL") or tree["redis"]["url"]
    return _dump(masked(tree))


def masked(tree: Any, name: str = "") -> Any:
    """``tree`` with passwords in URLs and values of secret-looking names masked."""
    if isinstance(tree, dict):
        return {key: masked(value, str(key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [masked(value, name) for value in tree]
    if tree is not None and _SECRET_NAME.search(name):
        return MASK
    return _without_password(tree) if isinstance(tree, str) and "://" in tree else tree


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
    except ValueError:
        return url
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:{MASK}@{host}"))


def _dump(tree: Any) -> str:
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100))


def _one_model(given: str) -> dict[str, Any]:
    """Settings of ``weir up --model``: the laptop's engine, the name from the last path part."""
    source = given
    looks_like_path = given.startswith((".", "/", "~"))
    folder = Path(given).expanduser()
    if given and folder.is_dir():
        source = str(folder.resolve())
    elif looks_like_path:
        raise CommandError(f"--model: no such directory: {given}", ExitCode.USAGE)
    elif not given.startswith(("builtin:", "registry:")) and not _HUB_ID.fullmatch(given):
        raise CommandError(
            f"--model: {given!r} is neither a directory nor an id like 'org/model'", ExitCode.USAGE
        )
    laptop = load_settings("laptop").models[0]
    last = source.rstrip("/").rpartition("/")[2]
    name = last.removeprefix("builtin:").removeprefix("registry:").partition("@")[0]
    alone = {"name": name, "source": source, "fallback": None}
    made = {**laptop.model_dump(mode="json"), **alone}
    if _is_quantized(Path(given).expanduser()):
        # The CPU's int8 and int4 kernels take no float32 activations.
        made["engine"]["args"]["dtype"] = "bfloat16"
    return made


def _is_quantized(folder: Path) -> bool:
    try:
        return "quantization_config" in json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False  # an id, or a folder that the engine will complain about


def with_absolute_sources(settings: Settings, folder: Path) -> Settings:
    """A relative directory of a model or adapter is relative to the settings file; the platform
    runs elsewhere."""
    models = []
    for model in settings.models:
        source = model.source
        if not source.startswith("builtin:"):
            source = _absolute(source, folder)
        adapters = tuple(
            adapter.model_copy(update={"source": _absolute(adapter.source, folder)})
            for adapter in model.adapters
        )
        models.append(model.model_copy(update={"source": source, "adapters": adapters}))
    return settings.model_copy(update={"models": tuple(models)})


def _absolute(source: str, folder: Path) -> str:
    path = folder / os.path.expanduser(source)
    return str(path.resolve()) if path.is_dir() else source
