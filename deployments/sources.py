"""Where a model's files are: ``builtin:NAME`` ships with weir, the rest is vLLM's to find."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from weir.errors import ConfigError


def model_source(source: str) -> str:
    """A directory, or a Hugging Face id.

    Raises:
        ConfigError: no model of that built-in name, or the directory is not a model.
    """
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        folder = Path(str(resources.files("weir"))) / "artifacts" / name
        if not (folder / "config.json").is_file():
            raise ConfigError(f"models[].source: weir ships no model {name!r}")
        return str(folder)
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"models[].source: {source} has no config.json")
        return str(path.resolve())
    if source.startswith((".", "/", "~")):
        raise ConfigError(f"models[].source: there is no directory {source}")
    return source
