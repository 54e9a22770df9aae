"""What has to be done to the database before a platform of this version runs on it.

``python -m deployments.preparing --settings FILE``: brings the schema up to date and puts the
tenants of the settings into it. With ``--wait`` it does neither, and ends when the schema is that
of this version: for whatever must not start earlier. ``weir up`` does the same by itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deployments.tenants import bring_up_to_date
from weir.database import database_url, open_database
from weir.database.migration import SchemaState, schema_state
from weir.errors import DatabaseAwayError, WeirError
from weir.logs import configure_logging
from weir.settings import parse_settings, read_tree
from weir.tenancy.database import TenantStore

_LOG = logging.getLogger("weir.preparing")
_PAUSE_S = 2.0


def wait_until_current(state: Callable[[], SchemaState], pause: Callable[[], None]) -> None:
    """Return when the schema is this version's. ``state`` may raise ``DatabaseAwayError``; a
    database that is newer is waited for too, until somebody brings this version's back."""
    told: str | None = None
    while True:
        try:
            now = str(state())
        except DatabaseAwayError as error:
            now = error.message
        if now == SchemaState.CURRENT:
            return
        if now != told:
            _LOG.info("waiting for the database: %s", now)
            told = now
        pause()


def main(argv: list[str] | None = None) -> int:
    """The exit code is 1 where the database cannot be used; the log has the reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--state", type=Path, default=Path())
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse_args(argv)
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    configure_logging(settings.log)
    store = TenantStore(open_database(database_url(settings.database, os.environ, arguments.state)))
    try:
        if arguments.wait:
            wait_until_current(lambda: schema_state(store.engine), lambda: time.sleep(_PAUSE_S))
        else:
            bring_up_to_date(store, settings.tenants)
            _LOG.info("the database is up to date")
    except WeirError as error:
        _LOG.error("the database cannot be used: %s", error.message)
        return 1
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
