"""Where a gateway finds the files and the database of its batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from deployments.batches.place import FILES_VARIABLE
from deployments.batches.service import Batches
from deployments.batches.storage import open_storage
from deployments.gateway.handle import Gateway
from weir.database import ENVIRONMENT_VARIABLE, open_database
from weir.settings import Settings

_LOG = logging.getLogger("weir.batches")


def build_batches(
    settings: Settings, environment: Mapping[str, str], gateway: Gateway, traffic: Callable[[], int]
) -> Batches | None:
    """Files and batches, not started; None where they are switched off, or there is no database or
    storage for them. ``traffic``: how many requests clients have sent so far.

    Raises:
        ConfigError: database or storage cannot be used.
    """
    if not settings.batches.enabled:
        return None
    database = environment.get(ENVIRONMENT_VARIABLE) or settings.database.url
    storage = environment.get(FILES_VARIABLE) or settings.files.url
    if database is None or storage is None:
        _LOG.warning("no database or no storage of files is named: there are no batches")
        return None
    return Batches(gateway, settings, open_database(database), open_storage(storage), traffic)
