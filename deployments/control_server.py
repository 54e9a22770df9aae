"""The control process, as the supervisor starts it, watches it and starts it again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

from deployments.child import GuardedChild
from weir.errors import ConfigError
from weir.settings.admin import AdminSettings

#: Where gateways find it: ``unix:PATH``; not there where it has a port of its own.
ADDRESS_VARIABLE = "WEIR_CONTROL_ADDRESS"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
# One that ends as soon as it has begun is not started again at once.
_PAUSE_S = 1.0


class ControlServer(GuardedChild):
    """A child process, which outlives a supervisor that is killed, as gateways and replicas do."""

    def __init__(
        self, admin: AdminSettings, settings_file: Path, state: Path, folder: Path
    ) -> None:
        """``folder``: where its socket is, unless it has a port of its own."""
        self._settings_file = settings_file
        self._state = state
        self._socket = folder / "control.sock" if admin.port is None else None
        self._where = (admin.host, admin.port or 0)
        self._started_s = 0.0
        self._awaited_s = 0.0

    @property
    def address(self) -> str | None:
        """What gateways are told; None where they have nothing to do with it."""
        return None if self._socket is None else f"unix:{self._socket}"

    def start(self) -> None:
        """Start it; it answers when :meth:`wait_until_up` returns.

        Raises:
            ConfigError: it was started a moment ago and has ended.
        """
        now_s = time.monotonic()
        if self._process is not None and now_s - self._started_s < _PAUSE_S:
            raise ConfigError("it ended as soon as it had begun; the log has the reason")
        self._started_s = self._awaited_s = now_s
        host, port = self._where
        where = self.address or f"{f'[{host}]' if ':' in host else host}:{port}"
        command = [sys.executable, "-P", "-m", "deployments.control", "--listen", where]
        command += ["--settings", str(self._settings_file), "--state", str(self._state)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def up(self) -> bool:
        """Whether it listens.

        Raises:
            ConfigError: it has failed, or does not come up.
        """
        process = self._process
        code = process.poll() if process is not None else None
        if code is not None and code > 0:
            raise ConfigError("server.admin: the control process ended; the log has the reason")
        if code is None and self._listens():
            return True
        if time.monotonic() - self._awaited_s > _START_TIMEOUT_S:
            raise ConfigError("server.admin: the control process does not come up")
        return False

    def restart(self) -> None:
        """With the settings as they are in the file now: it ends, and whoever watches it starts it
        again."""
        self._end(_STOP_TIMEOUT_S)
        self._awaited_s = time.monotonic()

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self._end(_STOP_TIMEOUT_S)
        self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            if self._socket is None:
                socket.create_connection(self._where, 1.0).close()
                return True
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self._socket))
                return True
        return False
