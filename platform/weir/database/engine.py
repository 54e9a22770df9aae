"""Opens the database, and runs transactions in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import StaticPool

from weir.errors import ConfigError, DatabaseAwayError

# SQLite's writers wait for each other in no order, and one may be overtaken for seconds where the
# disk or the cores are busy.
_BUSY_TIMEOUT_S = 15.0
_CONNECT_TIMEOUT_S = 3
_POOL = 4
_WRITES = "weir_writes"
#: Errors are logged, and what a statement was given may be a tenant's.
_HIDE = True


def open_database(url: str) -> Engine:
    """An engine; it connects when it is used first.

    Raises:
        ConfigError: the URL cannot be used.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("database.url: not a database's URL", param="database.url") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed)
    if backend in ("postgresql", "postgres"):
        return _postgresql(parsed)
    raise ConfigError(
        f"database.url: expected sqlite or postgresql, found {backend!r}", param="database.url"
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads, from one snapshot per statement or better.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
    with _answering(), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction: all of it is done, or nothing.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
    with _answering(), engine.connect() as connection:
        connection = connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DatabaseAwayError(f"The database does not answer now: {reason}") from error


def _sqlite(url: URL) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {"pool_size": _POOL}
    arguments = {"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S}
    engine = create_engine(url, connect_args=arguments, hide_parameters=_HIDE, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # sqlite3 would begin transactions itself, later than asked and not around DDL.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that began as a reader could not wait for it.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "weir"},
        hide_parameters=_HIDE,
        pool_size=_POOL,
        pool_pre_ping=True,
        pool_timeout=10.0,
    )
