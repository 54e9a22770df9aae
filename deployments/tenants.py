"""The supervisor's part in the tenant directory: it brings the database's schema up to date, and
puts the tenants of the settings where gateways watch, so that changing them restarts nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from deployments.gateway.tenants import FILE_VARIABLE
from weir.database import ENVIRONMENT_VARIABLE, database_url, migrate, open_database
from weir.errors import ConfigError, ConflictError, DatabaseAwayError
from weir.settings import Settings, TenantSettings
from weir.tenancy.database import TenantStore
from weir.tenancy.known import Known, read_known, write_known

_LOG = logging.getLogger("weir.platform")
_ACTOR = "settings"
_RETRY_S = 5.0


class TenantsOfSettings:
    """``clock`` is in seconds."""

    def __init__(
        self, settings: Settings, state: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = database_url(settings.database, os.environ, state)
        self._file = state.absolute() / "directory.json"
        self._store = TenantStore(open_database(self._url))
        self._migrated = False
        self._listed = settings.tenants
        self._clock = clock
        self._again_s: float | None = None

    def start(self) -> None:
        """Tell what is started from here on where the database is, and put the tenants into it. A
        database that does not answer is tried again later: gateways go on with what they know.

        Raises:
            ConfigError: the database is newer than this weir, or knows one of the tenants.
        """
        os.environ[ENVIRONMENT_VARIABLE] = self._url
        os.environ[FILE_VARIABLE] = str(self._file)
        self._put()

    def put(self, listed: tuple[TenantSettings, ...]) -> None:
        """Other tenants from now on.

        Raises:
            ConfigError: as :meth:`start`; those before stay in force.
        """
        before, self._listed = self._listed, listed
        try:
            self._put()
        except ConfigError:
            self._listed = before
            raise

    def try_again(self) -> None:
        """Where the database did not answer before, and some time has passed."""
        if self._again_s is not None and self._clock() >= self._again_s:
            try:
                self._put()
            except ConfigError as error:
                _LOG.error("the tenants of the settings are not in force: %s", error.message)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _put(self) -> None:
        self._again_s = None
        try:
            bring_up_to_date(self._store, self._listed, migrated=self._migrated)
            self._migrated = True
        except ConflictError as error:
            raise ConfigError(error.message) from None
        except DatabaseAwayError as error:
            _LOG.warning("%s Trying again later.", error.message)
            self._again_s = self._clock() + _RETRY_S
            self._keep_in_file()

    def _keep_in_file(self) -> None:
        """Gateways that start before the database is back take what is known from the file."""
        known = read_known(self._file) or Known(())
        known.listed = self._listed
        try:
            write_known(self._file, known)
        except OSError as error:
            _LOG.warning("the tenants cannot be kept in a file: %s", error)


def bring_up_to_date(
    store: TenantStore, listed: tuple[TenantSettings, ...], *, migrated: bool = False
) -> None:
    """Run the migrations that are missing, unless they have been, and put the tenants of the
    settings into the database.

    Raises:
        ConfigError: the database is newer than this weir.
        ConflictError: it knows one of the tenants.
        DatabaseAwayError: it does not answer.
    """
    if not migrated:
        migrate(store.engine)
    store.put_settings_tenants(_ACTOR, listed)
