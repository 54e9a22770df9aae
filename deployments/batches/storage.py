"""Contents of files, on anything that fsspec knows. Nothing here runs on an event loop.

A content is written once and never changed, and it is there whole or not at all: on a local file
system it is written beside its place and moved there; an object store shows an object when its
upload ends. Names are made of ids, never of what a client wrote.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

from weir.errors import ConfigError, StorageAwayError

BLOCK_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class NewContent:
    """A content that is being written. ``size`` in bytes."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._fs = filesystem
        self._path = path
        protocols = _protocols(filesystem)
        self._local = "file" in protocols
        self._moved = self._local or "memory" in protocols
        # A name of its own: two that write the same content may do so at once.
        own = f"{path}.{os.urandom(6).hex()}.partial"
        self._written = own if self._moved else path
        self._handle = filesystem.open(self._written, "wb", autocommit=self._moved)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            StorageAwayError: the storage does not take it.
        """
        with _answering():
            self._handle.write(data)
        self.size += len(data)

    def commit(self) -> None:
        """From now on it is there.

        Raises:
            StorageAwayError: the storage does not take it.
        """
        with _answering():
            self._handle.flush()
            if self._local:
                os.fsync(self._handle.fileno())
            self._handle.close()
            if self._local:
                Path(self._written).replace(self._path)
            elif self._moved:
                self._fs.mv(self._written, self._path)
            else:
                self._handle.commit()

    def discard(self) -> None:
        """It was never there. Does nothing after :meth:`commit`."""
        with suppress(OSError, ValueError):
            self._handle.close()
        with suppress(OSError, ValueError):
            if self._moved:
                self._fs.rm_file(self._written)
            else:
                self._handle.discard()


class Storage:
    """Contents below one folder or URL."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")

    def begin(self, name: str) -> NewContent:
        """A new content, to be committed or discarded.

        Raises:
            StorageAwayError: it cannot be written.
        """
        path = self._at(name)
        with _answering():
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return NewContent(self._fs, path)

    @contextmanager
    def create(self, name: str) -> Iterator[NewContent]:
        """The same; it is committed at the end, and discarded after an error."""
        content = self.begin(name)
        try:
            yield content
            content.commit()
        except BaseException:
            content.discard()
            raise

    def put(self, name: str, data: bytes) -> None:
        """A new content, all of it.

        Raises:
            StorageAwayError: it cannot be written.
        """
        with self.create(name) as content:
            content.write(data)

    def read(self, name: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``.

        Raises:
            FileNotFoundError: it is not there.
            StorageAwayError: it cannot be read.
        """
        with _answering():
            return bytes(self._fs.cat_file(self._at(name), start=start, end=end))

    def remove(self, name: str) -> None:
        """Remove a content; one that is not there is removed.

        Raises:
            StorageAwayError: it cannot be removed.
        """
        with suppress(FileNotFoundError), _answering():
            self._fs.rm_file(self._at(name))

    def remove_folder(self, name: str) -> None:
        """Remove all contents below a name.

        Raises:
            StorageAwayError: they cannot be removed.
        """
        with suppress(FileNotFoundError), _answering():
            self._fs.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a content")
        return f"{self._root}/{name}"


def open_storage(url: str) -> Storage:
    """The storage at a directory or an fsspec URL.

    Raises:
        ConfigError: the protocol is unknown, or its package is not installed.
    """
    if "://" not in url:
        url = str(Path(url).expanduser().absolute())
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"files.url: {url}: {error}", param="files.url") from error
    return Storage(filesystem, root)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageAwayError(f"The storage does not answer now: {error.strerror}.") from error
