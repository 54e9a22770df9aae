"""Child processes: what all of those that the supervisor guards have in common, and how a child
ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


class GuardedChild:
    """A program that is started, waited for, ended and started again, in one place."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def wait(self) -> None:
        """Until it has ended, whoever ended it; returns at once where none runs."""
        if (process := self._process) is not None:
            process.wait()

    def _end(self, patience_s: float = 0.0) -> None:
        """It ends. ``patience_s``: it is asked first, and killed when it has not by then."""
        if (process := self._process) is None:
            return
        if patience_s:
            process.terminate()
            try:
                process.wait(timeout=patience_s)
                return
            except subprocess.TimeoutExpired:
                pass
        process.kill()
        process.wait()


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Called in a child: when the parent ends, however that comes, Linux sends this signal.

    ``parent``: its process id, taken before the fork. One that ended before it was listened for
    ends the child at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def name_thread(name: bytes) -> None:
    """What ``ps`` and ``top`` call the calling thread; at most 15 bytes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name)
