"""How a gateway learns of its tenants while it runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weir.database import ENVIRONMENT_VARIABLE, open_database
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import LiveDirectory
from weir.tenancy.database import TenantStore
from weir.tenancy.watch import DirectoryWatch

#: Where the directory that was known last is kept.
FILE_VARIABLE = "WEIR_DIRECTORY_FILE"
_LOG = logging.getLogger("weir.gateway")


def build_watch(
    settings: Settings,
    environment: Mapping[str, str],
    live: LiveDirectory,
    metrics: GatewayMetrics,
) -> DirectoryWatch | None:
    """The watch that keeps ``live`` in step, not begun; None where no database is named, so that
    the tenants are those of the settings.

    Raises:
        ConfigError: the database's URL cannot be used.
    """
    url = environment.get(ENVIRONMENT_VARIABLE) or settings.database.url
    if url is None:
        _LOG.warning("no database is named: tenants are those of the settings only")
        return None
    file = environment.get(FILE_VARIABLE)
    watch = DirectoryWatch(
        live,
        TenantStore(open_database(url)),
        settings.tenants,
        Path(file) if file else None,
        settings.database.poll_s,
    )
    metrics.directory_age.set_function(lambda: watch.age_s)
    metrics.directory_revision.set_function(lambda: live.directory.revision)
    return watch


def describe_directory(live: LiveDirectory, watch: DirectoryWatch) -> dict[str, Any]:
    """For whoever watches the platform: how old what is known of the tenants is, in seconds."""
    directory = live.directory
    told: dict[str, Any] = {"revision": directory.revision, "age_s": round(watch.age_s, 1)}
    return told | ({"conflicts": list(directory.conflicts)} if directory.conflicts else {})
