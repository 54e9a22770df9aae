"""What a bench ran on."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores this process may use, memory in GiB, and the GPUs' names (None: no GPU).

    ``autogroup``: whether the kernel shares cores between sessions before it shares them between
    processes (None: it cannot). With it on, and every core busy, a process that wakes up was seen
    to wait for over a second (Linux 6.18), whatever its niceness; latencies then say nothing.
    """

    cores: int
    memory_gib: float
    gpu: str | None
    autogroup: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, memory with its unit in the value."""
        memory = f"{self.memory_gib:.1f} GiB"
        shown = {"cores": self.cores, "memory": memory, "gpu": self.gpu}
        return shown if self.autogroup is None else {**shown, "autogroup": self.autogroup}


def this_machine() -> Machine:
    """The machine we run on. A missing or failing nvidia-smi means no GPU."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return Machine(len(os.sched_getaffinity(0)), memory_gib, _gpu(), _autogroup())


def _autogroup() -> bool | None:
    try:
        return _AUTOGROUP.read_text("ascii").strip() == "1"
    except OSError:
        return None


def _gpu() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if not names:
        return None
    kinds = sorted(set(names))
    return ", ".join(f"{names.count(kind)} x {kind}" for kind in kinds)
