"""Files of a registry: read, written whole, created only if new; on a directory or through fsspec.

What "created only if new" is worth depends on the store:

* a directory: a hard link, which the file system makes or refuses in one step;
* an object store whose fsspec class implements ``pipe_file(mode="create")`` as a conditional write
  (s3fs and gcsfs do): as good;
* any other: fsspec itself looks first and writes then, so two writers within that instant can
  both believe they won. :class:`~weir.registry.registry.Registry` reads back what it wrote and so
  notices if the other's write came later, but not if it came between looking and reading back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

from weir.errors import ConfigError


class Store(Protocol):
    """Paths are relative, with slashes."""

    def read(self, path: str) -> bytes:
        """The file's bytes, or FileNotFoundError."""
        ...

    def create(self, path: str, content: bytes) -> bool:
        """Write a new file whole; False if there is one."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder, sorted; empty if there is no such folder."""
        ...

    def upload(self, local: Path, path: str) -> None:
        """Put a file there, over whatever was."""
        ...

    def download(self, path: str, local: Path) -> None:
        """Fetch a file, or FileNotFoundError."""
        ...

    def local(self, path: str) -> Path | None:
        """Where it is on this machine; None if it is elsewhere."""
        ...


class DirectoryStore:
    """A folder of a local (or mounted) file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def create(self, path: str, content: bytes) -> bool:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{target.name}.{secrets.token_hex(6)}"
        _write_durably(partial, content)
        try:
            os.link(partial, target)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def names(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(p.name for p in (self._root / folder).iterdir() if p.name[0] != ".")
        return []

    def upload(self, local: Path, path: str) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{target.name}.{secrets.token_hex(6)}"
        try:
            _write_durably(partial, local.read_bytes())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def download(self, path: str, local: Path) -> None:
        local.write_bytes(self.read(path))

    def local(self, path: str) -> Path | None:
        return self._root / path


class ObjectStore:
    """Anything fsspec knows: ``s3://``, ``gs://``, ``memory://``, ..."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(path)))

    def create(self, path: str, content: bytes) -> bool:
        try:
            self._fs.pipe_file(self._at(path), content, mode="create")
        except FileExistsError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def upload(self, local: Path, path: str) -> None:
        self._fs.pipe_file(self._at(path), local.read_bytes())

    def download(self, path: str, local: Path) -> None:
        self._fs.get_file(self._at(path), str(local))

    def local(self, path: str) -> Path | None:
        return None

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def open_store(url: str) -> Store:
    """The store at a directory or an fsspec URL.

    Raises:
        ConfigError: the protocol is unknown, or its package is not installed.
    """
    if "://" not in url:
        return DirectoryStore(Path(url).expanduser().absolute())
    import fsspec  # type: ignore[import-untyped]  # half a second that a directory need not pay

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"registry.url: {url}: {error}") from error
    if url.startswith("file://"):
        return DirectoryStore(Path(root))
    return ObjectStore(filesystem, root)


def _write_durably(file: Path, content: bytes) -> None:
    with file.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
