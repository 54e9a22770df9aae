"""The embedded Redis comes back with what it acknowledged."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deployments.guard import Guard
from deployments.haproxy import FrontDoor
from deployments.redis_server import RedisServer
from weir.settings.tree import ServerSettings

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_killed_redis_is_started_again_and_keeps_acknowledged_writes(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", _free_port(), tmp_path / "log")
    settings = ServerSettings(port=_free_port())
    front = FrontDoor(settings, tmp_path / "haproxy", one_active=True)
    again: list[str] = []
    told = threading.Event()

    def restarted(part: str) -> None:
        again.append(part)
        told.set()

    guard = Guard(lambda: [], front, restarted)
    guard.watch("Redis", server)
    server.start()
    front.start()
    guard.start()
    try:
        acknowledged = _write_while_killed(server)
        assert told.wait(10)
        with redis.Redis(port=server.port) as client:
            # The last one may have been written without having been answered.
            assert _read(client) in (acknowledged, acknowledged + 1)
        assert again == ["Redis"]
    finally:
        guard.stop()
        front.stop()
        server.stop()


def _write_while_killed(server: RedisServer) -> int:
    """Counts up until the server is killed in the middle; the last count that was answered."""
    pid = server.pid
    assert pid is not None
    acknowledged = 0
    # A client that retries would not notice.
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
        killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            while True:
                acknowledged = int(client.incr("n"))
        except redis.ConnectionError:
            pass
        killer.join()
    assert acknowledged > 100
    return acknowledged


def _read(client: redis.Redis) -> int:
    deadline = time.monotonic() + 10
    while True:
        try:
            return int(client.get("n"))  # type: ignore[arg-type]
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            assert time.monotonic() < deadline
            time.sleep(0.02)
