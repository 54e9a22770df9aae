"""LoRA adapters as files: where they are, and what can be said of them before an engine loads them.

An adapter is a folder in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``.
A folder with a ``manifest.json`` is checked against it, as a model's is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir.errors import ConfigError
from weir.registry import Registry, parse_reference, read_manifest, verify_folder
from weir.registry.manifest import file_digest
from weir.settings import ModelSettings, Settings

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: What vLLM's ``max_lora_rank`` may be.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MOST_HEADER_BYTES = 64 << 20
_DIGEST_DIGITS = 12


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter that was looked at. ``digest``: the first digits of a SHA-256 over its files, so
    that other weights under the same name are another adapter."""

    folder: Path
    rank: int
    digest: str


def locate_adapter(source: str, registry_url: str | None = None) -> Path:
    """The folder of ``registry:NAME@STAGE`` or of a path. ``registry_url`` None: ``registry`` in
    the state folder.

    Raises:
        ConfigError: there is none, or a file is not what its manifest says.
    """
    if source.startswith("registry:"):
        home = Path(os.environ.get("WEIR_HOME") or Path.home() / ".weir").expanduser()
        registry = Registry(registry_url or str(home / "registry"), cache=home / "models")
        return registry.open(*parse_reference(source.removeprefix("registry:")))
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"there is no adapter folder {source}")
    manifest = read_manifest(folder)
    if manifest is not None:
        verify_folder(folder, manifest)
    return folder.resolve()


def inspect_adapter(source: str, registry_url: str | None = None) -> AdapterFiles:
    """Find an adapter and read what does not need its tensors.

    Raises:
        ConfigError: it is not there, damaged, no LoRA adapter, or of a rank that vLLM cannot load.
    """
    folder = locate_adapter(source, registry_url)
    config, weights = folder / CONFIG, folder / WEIGHTS
    for file in (config, weights):
        if not file.is_file():
            raise ConfigError(f"{folder} has no {file.name}")
    rank = _rank(config)
    _require_tensors(weights)
    digest = hashlib.sha256(f"{file_digest(config)}{file_digest(weights)}".encode()).hexdigest()
    return AdapterFiles(folder, rank, digest[:_DIGEST_DIGITS])


def inspect_adapters(model: ModelSettings, registry_url: str | None) -> dict[str, AdapterFiles]:
    """All adapters of a model, by name.

    Raises:
        ConfigError: names the first that cannot be used.
    """
    found = {}
    for number, adapter in enumerate(model.adapters):
        try:
            found[adapter.name] = inspect_adapter(adapter.source, registry_url)
        except ConfigError as error:
            where = f"models[{model.name}].adapters[{number}].source"
            raise ConfigError(f"{where}: {error.message}") from error
    return found


def adapter_digests(settings: Settings) -> dict[str, dict[str, str]]:
    """Of each model, the versions of its adapters by name. All files are read.

    Raises:
        ConfigError: names the first that cannot be used.
    """
    url = settings.registry.url
    return {
        model.name: {name: files.digest for name, files in inspect_adapters(model, url).items()}
        for model in settings.models
    }


def largest_rank(files: Iterable[AdapterFiles]) -> int:
    """The smallest ``max_lora_rank`` of vLLM's that holds all of them."""
    rank = max((each.rank for each in files), default=1)
    return next(allowed for allowed in RANKS if allowed >= rank)


def _rank(file: Path) -> int:
    try:
        config: Any = json.loads(file.read_text("utf-8"))
        kind, rank = str(config["peft_type"]), config["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not an adapter's configuration: {error!r}") from error
    if kind.upper() != "LORA":
        raise ConfigError(f"{file}: peft_type: expected LORA, not {kind}")
    ranks = [rank, *(config.get("rank_pattern") or {}).values()]
    for each in ranks:
        if not isinstance(each, int) or isinstance(each, bool) or not 1 <= each <= RANKS[-1]:
            raise ConfigError(f"{file}: r: expected a rank from 1 to {RANKS[-1]}, not {each!r}")
    return int(max(ranks))


def _require_tensors(file: Path) -> None:
    """Only the header is read: eight bytes with its length, then JSON."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = handle.read(length) if length <= _MOST_HEADER_BYTES else b""
    try:
        names = set(json.loads(header)) - {"__metadata__"}
    except ValueError as error:
        raise ConfigError(f"{file}: no safetensors file") from error
    if not any(".lora_A." in name for name in names):
        raise ConfigError(f"{file}: has no LoRA tensors")
