"""The control process' application in this process: a real database, no sockets."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deployments.control.world import World, running, settings_of
from weir.database import migrate, open_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("control") / "weir.db"
    engine = open_database(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
def database_url(empty_database: Path, tmp_path: Path) -> str:
    """A database of the test's own."""
    file = tmp_path / "weir.db"
    shutil.copy(empty_database, file)
    return f"sqlite:///{file}"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """The application."""
    async with running(database_url, settings_of()) as made:
        yield made
