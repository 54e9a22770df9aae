"""Killing replicas or gateways of a platform under a batch."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

import psutil

from load_tests.servers import Started, StartError
from load_tests.servers.process import processes

_TITLE = "ServeReplica:weir:"
_WAIT_S = 120.0


def kill_one(started: Started, part: str) -> None:
    """SIGKILL the process of a deployment (its name begins with ``part``) that has been up the
    longest.

    Raises:
        StartError: none of it is up within two minutes.
    """
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        found = _up(started, part)
        if found:
            found[0].send_signal(signal.SIGKILL)
            return
        if time.monotonic() > deadline_s:
            raise StartError(f"no process of {part} is up", "")
        time.sleep(0.5)


def _up(started: Started, part: str) -> list[psutil.Process]:
    """A deployment's processes, the oldest first. Only what this bench has started is looked at."""
    found: list[tuple[float, psutil.Process]] = []
    for process in processes(started.pids()):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if f"{_TITLE}{part}" in title and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.create_time(), process))
    return [process for _, process in sorted(found, key=lambda pair: pair[0])]


def at_progress(
    done: Callable[[], int], total: int, kills: int, kill: Callable[[], None], limit_s: float
) -> int:
    """Kill as often, at even steps of progress; how often it was done.

    Raises:
        StartError: there is no progress for ``limit_s``.
    """
    for number in range(1, kills + 1):
        wanted = total * number // (kills + 1)
        deadline_s = time.monotonic() + limit_s
        while done() < wanted:
            if time.monotonic() > deadline_s:
                raise StartError(f"fewer than {wanted} lines are done after {limit_s:.0f} s", "")
            time.sleep(0.2)
        kill()
    return kills
