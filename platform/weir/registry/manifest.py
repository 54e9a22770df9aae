"""``manifest.json``: what a model folder says of itself, and the check that its files are those.

The digests protect against damage and against a file changed afterwards. They are no signature:
whoever can write the registry's index can also write a manifest that fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from weir.errors import ConfigError

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_SIGNALS = ("mean_logprob",)


@dataclass(frozen=True, slots=True)
class Confidence:
    """When an answer of this model may stand: the mean log-probability of its first
    ``first_tokens`` tokens is at least ``threshold`` (natural logarithm). The threshold was fitted
    so that what stands is right with probability ``target_accuracy``."""

    signal: Literal["mean_logprob"]
    first_tokens: int
    threshold: float
    target_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest. ``files``: path in the folder to hex SHA-256. ``raw`` is all of it."""

    name: str
    version: str
    files: Mapping[str, str]
    confidence: Confidence | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None if it has none (a model from elsewhere).

    Raises:
        ConfigError: there is one that cannot be read.
    """
    file = folder / MANIFEST
    return parse_manifest(file.read_bytes(), str(file)) if file.is_file() else None


def parse_manifest(content: bytes, where: str) -> Manifest:
    """A manifest's bytes.

    Raises:
        ConfigError: not JSON, a field is missing, or a file's name leads out of the folder.
    """
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{where}: not a manifest: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: not a manifest: expected an object")
    for key in ("name", "version", "sha256"):
        if not raw.get(key):
            raise ConfigError(f"{where}: {key} is missing")
    files = raw["sha256"]
    if not isinstance(files, dict):
        raise ConfigError(f"{where}: sha256: expected a mapping from file to digest")
    for name in files:
        _require_inside(name, where)
    return Manifest(
        name=str(raw["name"]),
        version=str(raw["version"]),
        files=files,
        confidence=_confidence(raw.get("confidence"), where),
        lineage=raw.get("lineage") or {},
        metrics=raw.get("metrics") or {},
        raw=raw,
    )


def verify_folder(folder: Path, manifest: Manifest) -> None:
    """Every file is the manifest's, and there is no other.

    Raises:
        ConfigError: names the first file that is missing, differs, or does not belong there.
    """
    # First of all: a file that nobody vouches for could be what the loader picks up.
    for path in sorted(p for p in folder.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST and name not in manifest.files:
            raise ConfigError(f"{path}: refused: the manifest does not list this file")
    for name, expected in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"{path}: refused: the manifest lists this file, and it is missing")
        found = file_digest(path)
        if found != expected:
            raise ConfigError(
                f"{path}: refused: its SHA-256 is {found[:12]}…, the manifest says "
                f"{str(expected)[:12]}… (damaged or changed)"
            )


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while part := handle.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _require_inside(name: object, where: str) -> None:
    path = PurePosixPath(str(name))
    if not isinstance(name, str) or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ConfigError(f"{where}: sha256: {name!r} is no path inside the folder")


def _confidence(data: object, where: str) -> Confidence | None:
    if data is None:
        return None
    try:
        assert isinstance(data, dict)
        signal, tokens = data["signal"], int(data["first_tokens"])
        threshold, target = float(data["threshold"]), data.get("target_accuracy")
        accuracy = None if target is None else float(target)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: confidence: {error!r}") from error
    if signal not in _SIGNALS or tokens < 1:
        raise ConfigError(
            f"{where}: confidence: expected signal {' or '.join(_SIGNALS)} and first_tokens ≥ 1"
        )
    return Confidence(signal, tokens, threshold, accuracy)
