"""The peaks of this node's device: from the table for GPUs, measured for CPUs.

A CPU is measured in a fifth of a second by the replica that starts first; the others on the node
read what it found from the platform's run folder (which is the temporary folder of all that the
platform starts).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from weir.cards.peaks import Peaks, device_peaks

_LOG = logging.getLogger("weir.replica")
_EACH_S = 0.1
_SIDE = 512
_COPY_ELEMENTS = 8 * 2**20


def find_peaks(accelerator: str | None, dtype: torch.dtype) -> Peaks | None:
    """Of one device of this replica; None for a GPU that the table lacks."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return cpu_peaks(dtype)
    for name in (accelerator, current_platform.get_device_name()):
        if name and (found := device_peaks(name)):
            return found
    _LOG.info("no MFU and MBU: peaks of this device are not known", extra={"device": accelerator})
    return None


def cpu_peaks(dtype: torch.dtype) -> Peaks:
    """With as many threads as this process's engine uses, in its data type."""
    file = Path(tempfile.gettempdir()) / _file_name(dtype)
    if (held := _read(file)) is None:
        held = measure_cpu(dtype)
        _write(file, held)
    return held


def measure_cpu(dtype: torch.dtype) -> Peaks:
    """The best of what a product of two matrices and a copy reach, in 0.1 s each."""
    left, right = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
    source = torch.ones(_COPY_ELEMENTS, dtype=torch.float32)
    target = torch.empty_like(source)
    product_s = _fastest_s(lambda: torch.mm(left, right))
    copy_s = _fastest_s(lambda: target.copy_(source))
    return Peaks(2 * _SIDE**3 / product_s, 2 * 4 * _COPY_ELEMENTS / copy_s, "measured")


def _fastest_s(run: Callable[[], Any]) -> float:
    run()  # allocates
    until_s = time.perf_counter() + _EACH_S
    best_s = float("inf")
    while True:
        begun_s = time.perf_counter()
        run()
        ended_s = time.perf_counter()
        best_s = min(best_s, ended_s - begun_s)
        if ended_s >= until_s:
            return best_s


def _file_name(dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    return f"weir-peaks-{torch.get_num_threads()}-{kind}.json"


def _read(file: Path) -> Peaks | None:
    """What this user wrote there; the temporary folder may be everybody's."""
    try:
        if file.is_symlink() or file.stat().st_uid != os.getuid():
            return None
        return Peaks(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, peaks: Peaks) -> None:
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile("w", delete=False) as out:
        out.write(json.dumps(asdict(peaks)))
        os.replace(out.name, file)
