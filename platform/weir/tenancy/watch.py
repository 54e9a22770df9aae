"""Keeps a gateway's directory in step with the database, in a thread of its own.

The database's revision is read every ``poll_s`` seconds; when it has moved, what changed since is
read, and the directory is replaced whole. While the database does not answer, the directory stays
as it is. The last one is kept in a file, for a gateway that starts meanwhile; it holds digests of
keys, never keys.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weir.errors import WeirError
from weir.settings.tenants import TenantFields, TenantSettings
from weir.tenancy.database import TenantStore
from weir.tenancy.directory import Directory, LiveDirectory
from weir.tenancy.fields import (
    KeyFields,
    fields_of_key,
    fields_of_tenant,
    key_of_fields,
    read_fields,
    tenant_of_fields,
)
from weir.tenancy.records import Changes
from weir.tenancy.rows import YAML
from weir.tenancy.tenant import Key, Tenant

_LOG = logging.getLogger("weir.tenancy")
#: So often the times of keys' last uses are written.
NOTE_USES_S = 10.0
#: The file is written at most so often: with many tenants it takes a while.
_KEEP_EVERY_S = 2.0
_VERSION = 1


@dataclass
class Known:
    """What is known of the directory, as it was read."""

    listed: tuple[TenantSettings, ...]
    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    revision: int = -1

    def take(self, changes: Changes) -> None:
        """What was changed in the database."""
        for each in changes.tenants:
            if each.deleted_s is None:
                self.tenants[each.tenant.id] = each.tenant
            else:
                self.tenants.pop(each.tenant.id, None)
        for key in changes.keys:
            if key.revoked_s is None:
                self.keys[key.id] = key
            else:
                self.keys.pop(key.id, None)
        if changes.documents and YAML in changes.documents:
            body = changes.documents[YAML]
            self.listed = tuple(read_fields(TenantSettings, each) for each in body)
        self.revision = changes.revision

    def directory(self) -> Directory:
        """All of it, frozen."""
        return Directory.of(self.listed, self.tenants.values(), self.keys.values(), self.revision)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {
            "version": _VERSION,
            "revision": self.revision,
            "listed": [each.model_dump(mode="json") for each in self.listed],
            "tenants": {
                name: fields_of_tenant(each).model_dump(mode="json")
                for name, each in self.tenants.items()
            },
            "keys": {
                name: {
                    "tenant": key.tenant,
                    "digest": key.digest,
                    "created_s": key.created_s,
                    "fields": fields_of_key(key).model_dump(mode="json"),
                }
                for name, key in self.keys.items()
            },
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Known:
        """Raises:
        KeyError, TypeError, ValueError: it is not what :meth:`to_json` gives.
        """
        if kept["version"] != _VERSION:
            raise ValueError("another version's file")
        return cls(
            tuple(read_fields(TenantSettings, each) for each in kept["listed"]),
            {
                name: tenant_of_fields(name, read_fields(TenantFields, each))
                for name, each in kept["tenants"].items()
            },
            {
                name: key_of_fields(
                    name,
                    each["tenant"],
                    each["digest"],
                    read_fields(KeyFields, each["fields"]),
                    created_s=each["created_s"],
                )
                for name, each in kept["keys"].items()
            },
            int(kept["revision"]),
        )


class DirectoryWatch:
    """``listed``: the tenants of the settings, until the database says otherwise; ``clock`` is in
    seconds."""

    def __init__(
        self,
        live: LiveDirectory,
        store: TenantStore,
        listed: Iterable[TenantSettings],
        file: Path | None = None,
        poll_s: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._store = store
        self._known = Known(tuple(listed))
        self._file = file
        self._poll_s = poll_s
        self._clock = clock
        self._answered_s = clock()
        self._noted_s = clock()
        self._uses: dict[str, float] = {}
        self._unkept = False
        self._keep_at_s = clock()
        self._reachable = True
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def age_s(self) -> float:
        """So long ago the database last said that the directory is up to date."""
        return max(0.0, self._clock() - self._answered_s)

    @property
    def reachable(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self._reachable

    def begin(self) -> None:
        """The first look, in the caller's thread: from the database, or else from the file."""
        if not self.look():
            self._recall()
        self._thread = threading.Thread(target=self._run, name="weir-directory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what keys were used is still written."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def look(self) -> bool:
        """One look at the database. Whether it answered."""
        try:
            if self._store.revision() != self._known.revision:
                self._read()
            self._keep()
            self._note_uses()
        except (WeirError, ValidationError) as error:
            if self._reachable:
                _LOG.warning("the tenants cannot be read", extra={"reason": str(error)})
            self._reachable = False
            return False
        if not self._reachable:
            _LOG.info("the tenants can be read again")
        self._answered_s = self._clock()
        self._reachable = True
        return True

    def _read(self) -> None:
        revision = self._known.revision
        changes = self._store.changes_since(revision)
        if changes.revision < revision:  # another database than before: an older copy, or a new one
            self._known = Known(self._known.listed)
            changes = self._store.changes_since(-1)
        self._known.take(changes)
        self._replace()
        self._unkept = True

    def _replace(self) -> None:
        directory = self._known.directory()
        for told in directory.conflicts:
            _LOG.error("two tenants in one", extra={"conflict": told})
        self._live.directory = directory

    def _note_uses(self) -> None:
        if self._clock() - self._noted_s < NOTE_USES_S and not self._stopped.is_set():
            return
        self._noted_s = self._clock()
        self._uses |= self._live.take_uses()
        known = {key: at_s for key, at_s in self._uses.items() if key in self._known.keys}
        if known:
            self._store.note_uses(known)
        self._uses = {}

    def _recall(self) -> None:
        try:
            assert self._file is not None
            self._known = Known.from_json(json.loads(self._file.read_text("utf-8")))
        except (AssertionError, OSError, KeyError, TypeError, ValueError, ValidationError):
            return
        _LOG.warning("starting with the tenants that were known last")
        self._replace()

    def _keep(self) -> None:
        if self._file is None or not self._unkept or self._clock() < self._keep_at_s:
            return
        self._unkept = False
        self._keep_at_s = self._clock() + _KEEP_EVERY_S
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                json.dump(self._known.to_json(), handle)
            fresh.replace(self._file)
        except OSError as error:
            _LOG.warning("the tenants cannot be kept in a file", extra={"reason": str(error)})

    def _run(self) -> None:
        while not self._stopped.wait(self._poll_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the thread's edge: told, and tried again
                _LOG.exception("looking at the tenants failed")
        try:
            self.look()
        except Exception:  # noqa: BLE001 - as above
            _LOG.exception("looking at the tenants failed")
