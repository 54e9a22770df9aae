"""A real PostgreSQL for tests: Debian's server in a temporary folder, on a Unix socket."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

_START_TIMEOUT_S = 30.0
_PR_SET_PDEATHSIG = 1
_OWNERS = ("postgres", "nobody")


def postgresql_folder() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; None where they are not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((each.parent for each in versions), default=None)


class PostgresqlServer:
    """A server of one test run. It refuses to run as root, and so runs as another user there."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="weir-pg-", dir="/tmp"))
        self._owner = _owner()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://weir@/{database}?host={self._folder}"

    def start(self) -> None:
        """Start, and wait until it answers; also again, after :meth:`stop`.

        Raises:
            RuntimeError: it does not come up; the message has its log.
        """
        data = self._folder / "data"
        if not data.exists():
            if self._owner is not None:
                shutil.chown(self._folder, self._owner)
            self._run("initdb", "-D", str(data), "-U", "weir", "-A", "trust", "--no-sync", "-N")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", data, "-k", self._folder),
                    *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._owner,
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = (self._folder / "log").read_text("utf-8", "replace")
                self.stop()
                raise RuntimeError(f"PostgreSQL did not come up: {told[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; clients are disconnected, what was committed stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """End it, and remove its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"t{uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        engine = create_engine(self._driver_url(), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def _answers(self) -> bool:
        with contextlib.suppress(OperationalError):
            self._execute("SELECT 1")
            return True
        return False

    def _driver_url(self) -> str:
        return self.url().replace("postgresql://", "postgresql+psycopg://")

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            user=self._owner,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{program}: {result.stderr}")


@contextmanager
def running_postgresql(programs: Path) -> Iterator[PostgresqlServer]:
    """A server that runs, and is gone afterwards."""
    server = PostgresqlServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _owner() -> str | None:
    """Who runs it: whoever runs the tests, unless that is root."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _OWNERS if name in known), None)


def _end_with_parent() -> None:
    # A killed test run must not leave a server behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
