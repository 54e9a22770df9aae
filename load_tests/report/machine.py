"""What a bench ran on."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores this process may use, memory in GiB, and the GPUs' names (None: no GPU)."""

    cores: int
    memory_gib: float
    gpu: str | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: ``{cores, memory, gpu}``, memory with its unit in the value."""
        return {"cores": self.cores, "memory": f"{self.memory_gib:.1f} GiB", "gpu": self.gpu}


def this_machine() -> Machine:
    """The machine we run on. A missing or failing nvidia-smi means no GPU."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return Machine(len(os.sched_getaffinity(0)), memory_gib, _gpu())


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
