"""Where a model's files are: ``builtin:NAME`` ships with weir, ``registry:NAME@STAGE`` is in the
model registry, the rest is a folder or vLLM's to find. Files that a manifest vouches for are
checked here, before anything loads them."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from weir.errors import ConfigError
from weir.registry import Registry, parse_reference, read_manifest, verify_folder
from weir.settings.section import nearest


def model_source(source: str, registry_url: str | None = None) -> str:
    """A directory, or a Hugging Face id. ``registry_url`` None: ``registry`` in the state folder.

    Raises:
        ConfigError: no model of that name, the directory is not a model, or a file is not what
            its manifest says.
    """
    if source.startswith("builtin:"):
        return str(_builtin(source.removeprefix("builtin:")))
    if source.startswith("registry:"):
        return str(_registered(source.removeprefix("registry:"), registry_url))
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{source} has no config.json")
        return str(path.resolve())
    if source.startswith((".", "/", "~")):
        raise ConfigError(f"there is no directory {source}")
    return source


def _builtin(name: str) -> Path:
    folder = Path(str(resources.files("weir"))) / "artifacts" / name
    if not (folder / "config.json").is_file():
        shipped = [each.name for each in folder.parent.iterdir() if each.is_dir()]
        raise ConfigError(f"weir ships no model {name!r}{nearest(name, shipped)}")
    manifest = read_manifest(folder)
    if manifest is not None:
        verify_folder(folder, manifest)
    return folder


def _registered(reference: str, url: str | None) -> Path:
    home = Path(os.environ.get("WEIR_HOME") or Path.home() / ".weir").expanduser()
    registry = Registry(url or str(home / "registry"), cache=home / "models")
    return registry.open(*parse_reference(reference))
