"""Keeps a gateway's directory in step with the database, in a thread of its own.

The database's revision is read every ``poll_s`` seconds; when it has moved, what changed since is
read, and the directory is replaced whole. While the database does not answer, the directory stays
as it is. The last one is kept in a file, for a gateway that starts meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from weir.errors import WeirError
from weir.settings.tenants import TenantSettings
from weir.tenancy.database import TenantStore
from weir.tenancy.directory import LiveDirectory
from weir.tenancy.known import Known, read_known, write_known

_LOG = logging.getLogger("weir.tenancy")
#: So often the times of keys' last uses are written.
NOTE_USES_S = 10.0
#: The file is written at most so often: with many tenants it takes a while.
_KEEP_EVERY_S = 2.0


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
        self._store.close()

    def look(self) -> bool:
        """One look at the database. Whether it answered."""
        try:
            if self._store.revision() != self._known.revision:
                self._read()
            self._keep()
            self._note_uses()
        except (WeirError, ValidationError, SQLAlchemyError) as error:
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
        known = read_known(self._file) if self._file is not None else None
        if known is None:
            return
        self._known = known
        _LOG.warning("starting with the tenants that were known last")
        self._replace()

    def _keep(self) -> None:
        if self._file is None or not self._unkept or self._clock() < self._keep_at_s:
            return
        self._unkept = False
        self._keep_at_s = self._clock() + _KEEP_EVERY_S
        try:
            write_known(self._file, self._known)
        except OSError as error:
            _LOG.warning("the tenants cannot be kept in a file", extra={"reason": str(error)})

    def _run(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self._look_on()
        self._look_on()

    def _look_on(self) -> None:
        try:
            self.look()
        except Exception:  # noqa: BLE001 - the thread's edge: told, and tried again
            _LOG.exception("looking at the tenants failed")
