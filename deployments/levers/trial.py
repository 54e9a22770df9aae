"""Runs a lever in a process of its own, bounded in time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import psutil

from deployments.levers.child import MARK
from deployments.levers.registry import Outcome

_LOOK_S = 0.2

# One thread, no compiler: start-up would cost more than is measured.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def try_lever(
    name: str, models: Sequence[str], runs: int, timeout_s: float, memory_bytes: int
) -> Outcome:
    """What the lever's process says, which times everything ``runs`` times; one that dies, hangs or
    grows too large does not work."""
    command = [sys.executable, "-m", "deployments.levers.child", name, *models, str(runs)]
    return run_bounded(command, timeout_s, memory_bytes)


def run_bounded(command: Sequence[str], timeout_s: float, memory_bytes: int) -> Outcome:
    """Run ``command``, which ends with an outcome's line, with all of its children."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | _ENVIRONMENT
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(
            command, stdout=out, stderr=err, env=env, start_new_session=True, text=True
        )
        try:
            broken = _watch(child, timeout_s, memory_bytes)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith(MARK)]
        if lines:
            said: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
            return Outcome(**said)
        return Outcome(False, note=broken or _reason(err.read(), child.returncode))


def _watch(child: subprocess.Popen[str], timeout_s: float, memory_bytes: int) -> str:
    """Wait for its end; why it was ended otherwise."""
    until_s = time.monotonic() + timeout_s
    while child.poll() is None:
        if time.monotonic() > until_s:
            return f"it did not end within {timeout_s:g} s"
        if _resident(child.pid) > memory_bytes:
            return f"it took more than {memory_bytes / 2**30:g} GiB"
        time.sleep(_LOOK_S)
    return ""


def _resident(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)
    except psutil.Error:
        return 0


def _reason(complaints: str, code: int) -> str:
    """The last line that names an exception."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    named = [
        line for line in lines if "Error" in line.partition(":")[0] and "Traceback" not in line
    ]
    reason = (named or lines or [f"it ended with code {code}"])[-1]
    return reason[:200]
