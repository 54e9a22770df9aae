"""Start a server with all its processes, wait until it answers, end it with all of them.

Some servers (Ray, HAProxy) start processes that are nobody's children in the end, so they are
found by a mark in their environment, which every child inherits, and by their parents: a process
that sets its title overwrites what /proc shows of its environment.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from load_tests.loadgen import Target

MARK = "WEIR_BENCH_MARK"
# What Ray's workers said, a Serve deployment's replicas among them.
_RAY_LOGS = "ray/session_*_*/logs/worker-*.err"
REPOSITORY = Path(__file__).resolve().parents[2]


class Unavailable(Exception):  # noqa: N818 - not an error: the peer is not installed
    """The system cannot be measured here; the message says why."""


class StartError(Exception):
    """The server did not come up; ``log_tail`` is the end of its log."""

    def __init__(self, message: str, log_tail: str) -> None:
        lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
        super().__init__(f"{message}: {lines[-1][:200]}" if lines else message)
        self.log_tail = log_tail


@dataclass(frozen=True, slots=True)
class Launch:
    """One command of a server. ``ready`` is asked until it says True.

    ``env`` is added to ours. ``name`` names its log file.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 300.0
    stop_timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Started:
    """A server that answers."""

    target: Target
    mark: str
    roots: tuple[int, ...]
    seconds_to_ready: float

    def ended(self) -> bool:
        """Whether one of its commands has ended by itself: what is measured then says nothing."""
        return sum(map(_alive, processes(self.roots))) < len(self.roots)

    def pids(self) -> list[int]:
        """All its processes that are alive now."""
        return family_of(self.mark, self.roots)


def unwind_on_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does: by way of everything that ends its servers."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def http_ready(port: int, path: str = "/health") -> Callable[[], bool]:
    """True once ``GET path`` answers 200."""

    def ask() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                return response.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


@contextlib.contextmanager
def start(
    launches: Sequence[Launch], target: Target, keep_logs: Path | None = None
) -> Iterator[Started]:
    """Start the commands one after the other; end all that came of them at the end.

    Their logs are copied to ``keep_logs`` before they go.

    Raises:
        StartError: one of them ended, or was not ready in time.
    """
    mark = secrets.token_hex(8)
    # Short: Ray puts Unix sockets below it, whose paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="wb-"))
    children: list[tuple[Launch, subprocess.Popen[bytes]]] = []
    started_s = time.monotonic()
    try:
        for launch in launches:
            child = _spawn(launch, mark, folder)
            children.append((launch, child))
            _wait_ready(launch, child, folder)
        roots = tuple(child.pid for _, child in children)
        yield Started(target, mark, roots, time.monotonic() - started_s)
    finally:
        # Looked for while the family tree is whole: some lose their parent on the way down.
        family = processes(family_of(mark, [c.pid for _, c in children if c.poll() is None]))
        for launch, child in reversed(children):
            _stop(child, launch.stop_timeout_s)
        end_family(family, mark)
        if keep_logs is not None:
            keep_logs.mkdir(parents=True, exist_ok=True)
            for log in (*folder.glob("*.log"), *folder.glob(_RAY_LOGS)):
                shutil.copy(log, keep_logs)
        shutil.rmtree(folder, ignore_errors=True)


def family_of(mark: str, roots: Sequence[int]) -> list[int]:
    """``roots``, processes that carry the mark in their environment, and all their descendants."""
    wanted = f"{MARK}={mark}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = _parent(entry)
                if int(entry.name) in roots:
                    found.add(int(entry.name))
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return sorted(found)


def _parent(entry: Path) -> int:
    # The name in brackets may hold spaces; the parent is the second field after it.
    return int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])


def bench_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment with bytecode caching on, nothing reported home and our code importable."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    paths = [str(REPOSITORY / "platform"), str(REPOSITORY)]
    given = env.get("PYTHONPATH", "").split(os.pathsep)
    quiet = {
        "PYTHONPATH": os.pathsep.join([*paths, *(path for path in given if path not in paths)]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }
    return env | quiet | dict(extra)


def _spawn(launch: Launch, mark: str, folder: Path) -> subprocess.Popen[bytes]:
    env = bench_environment({"RAY_TMPDIR": str(folder), **launch.env, MARK: mark})
    with (folder / f"{launch.name}.log").open("wb") as log:
        return subprocess.Popen(
            list(launch.command),
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_ready(launch: Launch, child: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + launch.start_timeout_s
    while not launch.ready():
        log = folder / f"{launch.name}.log"
        if child.poll() is not None:
            message = f"{launch.name} ended with code {child.returncode}"
        elif time.monotonic() > deadline_s:
            message = f"{launch.name} was not ready in {launch.start_timeout_s:.0f} s"
        else:
            time.sleep(0.1)
            continue
        raise StartError(message, log.read_text("utf-8", "replace")[-3000:])


def _stop(child: subprocess.Popen[bytes], patience_s: float) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)


def end_family(family: Sequence[psutil.Process], mark: str) -> None:
    """Kill what is left of ``family`` and of all that carry the mark; it had its chance to end
    by itself."""
    rest = {process.pid: process for process in family}
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        for process in processes(family_of(mark, ())):
            rest.setdefault(process.pid, process)
        # is_running compares the start time too, so a reused pid is not taken for ours.
        rest = {pid: process for pid, process in rest.items() if _alive(process)}
        if not rest:
            return
        for process in rest.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)


def processes(pids: Sequence[int]) -> list[psutil.Process]:
    """Those of ``pids`` that are still there, each tied to its start time."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
