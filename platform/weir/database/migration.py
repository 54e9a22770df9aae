"""Brings a database to the schema of this code. The steps are in ``migrations/versions``, one chain
for all rooms: a new one names the last one as its ``down_revision``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from weir.database.engine import reading, writing
from weir.errors import ConfigError

_FOLDER = Path(__file__).parent / "migrations"
#: Any number that nothing else locks.
_ADVISORY_LOCK = 0x77656972


class SchemaState(StrEnum):
    """How a database's schema stands to this code."""

    EMPTY = "empty"
    BEHIND = "behind"
    CURRENT = "current"
    NEWER = "newer"


def migrate(engine: Engine) -> None:
    """Run what is missing, in one transaction; processes that do so at once wait for each other.

    Raises:
        ConfigError: the database is newer than this code.
        DatabaseAwayError: it does not answer.
    """
    config = _config()
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:lock)")
            connection.execute(lock, {"lock": _ADVISORY_LOCK})
        state = _state(connection, config)
        if state is SchemaState.NEWER:
            raise _newer()
        if state is not SchemaState.CURRENT:
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")


def schema_state(engine: Engine) -> SchemaState:
    """How the database stands to this code.

    Raises:
        DatabaseAwayError: it does not answer.
    """
    with reading(engine) as connection:
        return _state(connection, _config())


def require_current(engine: Engine) -> None:
    """For whoever uses the database and is not the one who migrates it.

    Raises:
        ConfigError: its schema is older or newer than this code's.
        DatabaseAwayError: it does not answer.
    """
    state = schema_state(engine)
    if state is SchemaState.NEWER:
        raise _newer()
    if state is not SchemaState.CURRENT:
        raise ConfigError(f"the database's schema is {state}: 'weir up' brings it up to date")


def _newer() -> ConfigError:
    return ConfigError("the database is newer than this weir: install the version that made it")


def _state(connection: Connection, config: Config) -> SchemaState:
    scripts = ScriptDirectory.from_config(config)
    known = {each.revision for each in scripts.walk_revisions()}
    there = set(MigrationContext.configure(connection).get_current_heads())
    if not there:
        return SchemaState.EMPTY
    if there - known:
        return SchemaState.NEWER
    return SchemaState.CURRENT if there == set(scripts.get_heads()) else SchemaState.BEHIND


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
