"""Whether Ray's own processes are still there, and what is left to end when they are not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import psutil

from deployments.cluster import CONTROL_STORE
from weir.cli.process import RUN_ID, alive, family
from weir.cli.state import ProcessRecord

_ABANDONED_S = 10.0


class RayLost(Exception):  # noqa: N818 - an event, not an error
    """A process of Ray's own has ended, and with it what is needed to go on; the message names
    it."""


def own_family() -> list[psutil.Process]:
    """All that this process has started, and what that has started."""
    process = psutil.Process()
    run_id = os.environ.get(RUN_ID, "")
    return family(ProcessRecord(process.pid, process.create_time(), run_id))


class RayWatch:
    """Looks at the processes of Ray that the supervisor has started on this machine. ``lost`` names
    those of Ray's own that have ended; ``running`` lists what the platform runs."""

    def __init__(
        self,
        lost: Callable[[], list[str]],
        running: Callable[[], list[psutil.Process]] = own_family,
    ) -> None:
        self._lost = lost
        self._running = running
        self._survivors: list[psutil.Process] | None = None

    def look(self) -> None:
        """Without its control store Ray ends all that it runs, within a minute. Without its node
        manager, what it runs is of use until the first of it ends: nobody could start that again.

        Raises:
            RayLost: that has come.
        """
        lost = self._lost()
        if not lost:
            return
        if self._survivors is None:
            self._survivors = [each for each in self._running() if _is_serves(each)]
        if CONTROL_STORE in lost or not all(map(alive, self._survivors)):
            raise RayLost(lost[0])


def end_family() -> None:
    """Kill :func:`own_family`; nothing is asked of Ray, which would wait for what is gone."""
    processes = own_family()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=_ABANDONED_S)


def _is_serves(process: psutil.Process) -> bool:
    """Whether it is a gateway, a replica or Serve's controller."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith("ray::Serve")
    return False
