"""Where the database is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weir.settings.database import DatabaseSettings

ENVIRONMENT_VARIABLE = "WEIR_DATABASE_URL"
_FILE = "weir.db"


def database_url(settings: DatabaseSettings, environment: Mapping[str, str], state: Path) -> str:
    """``WEIR_DATABASE_URL``, else ``database.url``, else a SQLite file in the state folder."""
    given = environment.get(ENVIRONMENT_VARIABLE) or settings.url
    return given or f"sqlite:///{state.absolute() / _FILE}"
