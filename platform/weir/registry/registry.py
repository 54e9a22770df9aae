"""Versions of models, with stages, on a directory or an object store.

Layout: ``NAME/files/DIGEST/...`` holds a version's files, ``NAME/index/000007.json`` the seventh
index. Files go first and are never changed; what no index names does not exist, so a broken add
leaves nothing that could be opened. The highest numbered index counts. A change is made by
creating the next number, which one writer at a time can (optimistic concurrency control: Kung and
Robinson, ACM TODS 1981); the other starts again from what the first one wrote.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weir.errors import ConfigError
from weir.registry.gate import GateReport
from weir.registry.index import Index, Stage, Version, decode_index, encode_index
from weir.registry.manifest import MANIFEST, Manifest, parse_manifest, verify_folder
from weir.registry.store import Store, open_store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ATTEMPTS = 20


class Registry:
    """``cache``: where files of a store that is not on this machine are kept."""

    def __init__(
        self,
        root_url: str,
        cache: Path | None = None,
        clock: Callable[[], float] = time.time,
        store: Store | None = None,
    ) -> None:
        self.url = root_url
        self._store = store or open_store(root_url)
        self._cache = cache or Path(tempfile.gettempdir()) / f"weir-models-{os.getuid()}"
        self._clock = clock

    def names(self) -> list[str]:
        """The models that have versions."""
        return [name for name in self._store.names("") if self._store.names(f"{name}/index")]

    def list(self, name: str | None = None) -> list[Version]:
        """All versions, of one model or of all, oldest first."""
        names = self.names() if name is None else [name]
        return [version for each in names for version in self._index(each).versions]

    def show(self, name: str, which: Stage | int = Stage.LIVE) -> Version:
        """One version.

        Raises:
            ConfigError: there is none.
        """
        return self._index(name).find(which)

    def manifest(self, version: Version) -> Manifest:
        """A version's manifest.

        Raises:
            ConfigError: it is missing, or not the one that was added.
        """
        path = f"{_files(version)}/{MANIFEST}"
        try:
            content = self._store.read(path)
        except FileNotFoundError:
            raise ConfigError(f"{self.url}/{path}: refused: the manifest is missing") from None
        if hashlib.sha256(content).hexdigest() != version.digest:
            raise ConfigError(
                f"{self.url}/{path}: refused: the manifest is not the one of {version.reference}"
            )
        return parse_manifest(content, f"{self.url}/{path}")

    def add(self, folder: Path, gate: GateReport, name: str | None = None) -> Version:
        """A new candidate from a model folder with a manifest. ``name``: the manifest's if None.

        Raises:
            ConfigError: the gate failed, the folder is not what its manifest says, or the same
                files are there already.
        """
        if not gate.passed:
            why = "; ".join(gate.failures) or "no reason given"
            raise ConfigError(f"{folder}: refused: the evaluation gate failed: {why}")
        file = folder / MANIFEST
        if not file.is_file():
            raise ConfigError(f"{folder}: has no {MANIFEST}")
        content = file.read_bytes()
        manifest = parse_manifest(content, str(file))
        verify_folder(folder, manifest)
        name = name or manifest.name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be a model's name in the registry")
        draft = Version(
            name,
            0,
            hashlib.sha256(content).hexdigest(),
            Stage.CANDIDATE,
            manifest.version,
            self._clock(),
            manifest.lineage,
            gate.metrics or manifest.metrics,
        )
        self._index(name).with_version(draft)  # refuses a repetition before anything is copied
        for relative in (*manifest.files, MANIFEST):
            self._store.upload(folder / relative, f"{_files(draft)}/{relative}")
        index = self._change(
            name, lambda now: now.with_version(replace(draft, number=now.next_number))
        )
        return index.versions[-1]

    def promote(self, name: str, number: int, to: Stage | None = None) -> Version:
        """A version one stage on, or to the stage given; its files are checked first.

        Raises:
            ConfigError: no such version, no such step, or its files are not what was added.
        """
        if to is not Stage.RETIRED:
            self.open(name, number)
        return self._change(name, lambda now: now.promoted(number, to)).find(number)

    def rollback(self, name: str) -> Version:
        """Make the version live again that was live before.

        Raises:
            ConfigError: there was none, or its files are not what was added.
        """
        self.open(name, self._index(name).rolled_back().find(Stage.LIVE).number)
        return self._change(name, Index.rolled_back).find(Stage.LIVE)

    def open(self, name: str, which: Stage | int = Stage.LIVE) -> Path:
        """A local folder with the version's files, every one checked now.

        Raises:
            ConfigError: no such version; or a file is missing, differs or does not belong.
        """
        version = self._index(name).find(which)
        manifest = self.manifest(version)
        here = self._store.local(_files(version))
        if here is not None:
            verify_folder(here, manifest)
            return here
        return self._fetch(version, manifest)

    def _fetch(self, version: Version, manifest: Manifest) -> Path:
        target = self._cache / version.name / version.digest
        if target.is_dir():
            verify_folder(target, manifest)
            return target
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
        try:
            for relative in (*manifest.files, MANIFEST):
                local = partial / relative
                local.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._store.download(f"{_files(version)}/{relative}", local)
                except FileNotFoundError:
                    raise ConfigError(
                        f"{self.url}/{_files(version)}/{relative}: refused: it is missing"
                    ) from None
            verify_folder(partial, manifest)
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # somebody else fetched the same just now
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _index(self, name: str) -> Index:
        files = [f for f in self._store.names(f"{name}/index") if f.endswith(".json")]
        if not files:
            return Index(name)
        path = f"{name}/index/{files[-1]}"
        return decode_index(self._store.read(path), f"{self.url}/{path}")[0]

    def _change(self, name: str, change: Callable[[Index], Index]) -> Index:
        for _ in range(_ATTEMPTS):
            following = change(self._index(name))
            writer = secrets.token_hex(8)
            path = f"{name}/index/{following.sequence:06d}.json"
            if not self._store.create(path, encode_index(following, writer)):
                continue
            # Only a store without conditional writes can show somebody else's here.
            if decode_index(self._store.read(path), path)[1] == writer:
                return following
        raise ConfigError(f"{name}: {_ATTEMPTS} times somebody else changed the registry first")


def parse_reference(reference: str) -> tuple[str, Stage | int]:
    """``NAME``, ``NAME@STAGE`` or ``NAME@NUMBER``; the live version where nothing is said.

    Raises:
        ConfigError: what follows the @ is neither.
    """
    name, at, which = reference.partition("@")
    if not at:
        return name, Stage.LIVE
    if which.isdecimal():
        return name, int(which)
    try:
        return name, Stage(which)
    except ValueError:
        stages = ", ".join(Stage)
        raise ConfigError(f"{reference}: expected a version number or one of {stages}") from None


def _files(version: Version) -> str:
    return f"{version.name}/files/{version.digest}"
