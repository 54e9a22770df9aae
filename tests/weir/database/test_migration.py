"""The schema: what the migrations make is what the code expects, in both databases."""

from __future__ import annotations

import importlib
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Integer, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from weir.database import (
    SchemaState,
    UsdColumn,
    database_url,
    metadata,
    migrate,
    open_database,
    reading,
    require_current,
    schema_state,
    writing,
)
from weir.database.migration import _config
from weir.errors import ConfigError, DatabaseAwayError
from weir.settings.database import DatabaseSettings

#: Where rooms declare their tables.
DECLARED = (
    "weir.tenancy.tables",
    "weir.ledger.tables",
    "weir.ledger.slo",
    "deployments.control.idempotency",
    "deployments.batches.tables",
)


@pytest.fixture(autouse=True)
def _all_tables() -> None:
    for module in DECLARED:
        importlib.import_module(module)


def test_the_migrations_make_the_tables_that_the_code_has(database: Engine) -> None:
    with reading(database) as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_the_migrations_are_one_chain() -> None:
    scripts = ScriptDirectory.from_config(_config())
    assert len(scripts.get_heads()) == 1
    assert [each for each in scripts.walk_revisions() if each.is_merge_point] == []


def test_a_database_is_brought_up_to_date_once(database_at: str) -> None:
    engine = open_database(database_at)
    assert schema_state(engine) is SchemaState.EMPTY
    with pytest.raises(ConfigError, match="empty"):
        require_current(engine)
    threads = [threading.Thread(target=migrate, args=(engine,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require_current(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT revision FROM directory")).scalar_one() == 0
    engine.dispose()


def test_a_newer_database_is_left_alone(database: Engine) -> None:
    with writing(database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    assert schema_state(database) is SchemaState.NEWER
    for use in (migrate, require_current):
        with pytest.raises(ConfigError, match="newer than this weir"):
            use(database)
    with reading(database) as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        assert found == "9999_later"


def test_all_of_it_can_be_undone(database: Engine) -> None:
    from alembic import command

    config = _config()
    with writing(database) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
    migrate(database)
    require_current(database)


def test_a_transaction_is_all_or_nothing(database: Engine) -> None:
    def change_half() -> None:
        with writing(database) as connection:
            connection.execute(text("UPDATE directory SET revision = 7"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_half()
    with reading(database) as connection:
        assert connection.execute(text("SELECT revision FROM directory")).scalar_one() == 0


def test_writers_wait_for_each_other(database: Engine) -> None:
    def add() -> None:
        for _ in range(10):
            with writing(database) as connection:
                held = connection.execute(
                    text("UPDATE directory SET revision = revision + 1 RETURNING revision")
                ).scalar_one()
                connection.execute(text("UPDATE directory SET revision = :r"), {"r": held})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(database) as connection:
        assert connection.execute(text("SELECT revision FROM directory")).scalar_one() == 40


def test_amounts_are_exact_in_sums(database: Engine) -> None:
    table = Table(
        "bill", MetaData(), Column("id", Integer, primary_key=True), Column("usd", UsdColumn)
    )
    amounts = [Decimal("0.1"), Decimal("0.2"), Decimal("0.000000001"), Decimal("123456789.5")]
    with writing(database) as connection:
        table.create(connection)
        connection.execute(insert(table), [{"usd": each} for each in amounts])
        assert sorted(connection.execute(select(table.c.usd)).scalars()) == sorted(amounts)
        total = connection.execute(select(func.sum(table.c.usd, type_=UsdColumn()))).scalar_one()
        assert total == sum(amounts)
        with pytest.raises(Exception, match="no whole number of nano-USD"):
            connection.execute(insert(table), {"usd": Decimal("1e-10")})


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/at/all.db", "postgresql://weir@127.0.0.1:1/weir"]
)
def test_a_database_that_does_not_answer_says_so(url: str) -> None:
    engine = open_database(url)
    for use in (schema_state, migrate):
        with pytest.raises(DatabaseAwayError, match="does not answer"):
            use(engine)
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://x/y", "what", "postgresql://:::"])
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url"):
        open_database(url)


def test_where_the_database_is(tmp_path: Path) -> None:
    settings, own = DatabaseSettings(url="postgresql://h/own"), DatabaseSettings()
    told = {"WEIR_DATABASE_URL": "postgresql://h/told"}
    assert database_url(settings, told, tmp_path) == "postgresql://h/told"
    assert database_url(settings, {}, tmp_path) == "postgresql://h/own"
    assert database_url(own, {}, tmp_path) == f"sqlite:///{tmp_path / 'weir.db'}"
    with pytest.raises(ValueError, match="postgresql"):
        DatabaseSettings(url="mysql://x/y")


def test_errors_do_not_tell_what_a_statement_was_given(database: Engine) -> None:
    with pytest.raises(DBAPIError) as caught, writing(database) as connection:
        connection.execute(
            text("INSERT INTO directory (id, revision) VALUES (1, :secret)"), {"secret": 4711}
        )
    assert "4711" not in str(caught.value)
