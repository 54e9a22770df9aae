"""Profiles a live replica, on request, from beside it: its streams go on.

A flame graph's stacks come from py-spy, a process of its own that reads the memory of the replica's
processes a hundred times a second. A torch trace comes from the profiler that vLLM has built in,
where the engine was started with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psutil

from deployments import traces
from deployments.listener import answer

PATH = "/weir/profile"
LONGEST_S = 120.0
_RATE_HZ = 100
_GRACE_S = 20.0
_NO_TORCH = (
    "The engine was started without a profiler. Put this into its engine.args and apply: "
    "profiler_config: {profiler: torch, torch_profiler_dir: /a/folder}"
)


class ProfileError(Exception):
    """The profile cannot be taken; the message says what to do."""


class Profiler:
    """An ASGI application: ``POST /weir/profile?seconds=N&kind=flame`` (or ``torch``). One profile
    at a time. ``client`` is vLLM's engine client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._busy = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        asked = parse_qs(scope["query_string"].decode())
        try:
            seconds = float(asked.get("seconds", ["5"])[0])
            body = await self._profile(seconds, asked.get("kind", ["flame"])[0])
            status = 200
        except (ProfileError, ValueError) as error:
            status, body = 409, {"error": str(error)}
        await answer(send, status, json.dumps(body).encode(), b"application/json")

    async def _profile(self, seconds: float, kind: str) -> dict[str, Any]:
        if not 0 < seconds <= LONGEST_S:
            raise ProfileError(f"seconds: between 0 and {LONGEST_S:g}")
        if self._busy:
            raise ProfileError("Another profile of this replica is being taken.")
        self._busy = True
        try:
            if kind == "torch":
                return await self._trace(seconds)
            return {"processes": await sample_processes(_family(), seconds)}
        finally:
            self._busy = False

    async def _trace(self, seconds: float) -> dict[str, Any]:
        config = self._client.vllm_config.profiler_config
        if config.profiler != "torch":
            raise ProfileError(_NO_TORCH)
        folder = Path(config.torch_profiler_dir)
        before = traces.list_traces(folder)
        await self._client.start_profile()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._client.stop_profile()
        files = sorted(traces.list_traces(folder) - before)
        if not files:
            raise ProfileError(f"The profiler wrote nothing into {folder}.")
        costs = await asyncio.to_thread(traces.largest_operations, files)
        return {"files": [str(file) for file in files], "costs": costs}


def _family() -> dict[str, int]:
    """This process and its children, by what they are."""
    own = psutil.Process()
    found = {"front end": own.pid}
    for child in own.children(recursive=True):
        try:
            name = child.name()
        except psutil.NoSuchProcess:
            continue
        label = "engine" if "engine" in name.lower() else name
        found[f"{label} {child.pid}" if label in found else label] = child.pid
    return found


async def sample_processes(pids: Mapping[str, int], seconds: float) -> dict[str, str]:
    """Collapsed stacks of each process. Children that are not Python are left out.

    Raises:
        ProfileError: py-spy is not there, or may not look into the processes.
    """
    tool = find_py_spy()
    with tempfile.TemporaryDirectory(prefix="weir-profile-") as held:
        runs = (_sample(tool, pid, seconds, Path(held) / f"{pid}.txt") for pid in pids.values())
        outcomes = await asyncio.gather(*runs)
    sampled = {
        name: stacks for name, (stacks, _) in zip(pids, outcomes, strict=True) if stacks is not None
    }
    if not sampled:
        raise ProfileError(explain(outcomes[0][1]))
    return sampled


def find_py_spy() -> str:
    """The program beside this Python, or on the path.

    Raises:
        ProfileError: it is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    tool = str(beside) if beside.is_file() else shutil.which("py-spy")
    if tool is None:
        raise ProfileError("py-spy is not installed where the replica runs: pip install py-spy")
    return tool


def explain(complaint: str) -> str:
    """What py-spy said, with what to do about it where that is known."""
    last = complaint.strip().splitlines()[-1:] or ["py-spy said nothing"]
    if "ermission" in complaint or "not permitted" in complaint:
        return (
            "The kernel does not let py-spy read the replica's memory. On a machine of your own: "
            "sudo sysctl kernel.yama.ptrace_scope=0. In Kubernetes: give the replica's container "
            f"the capability SYS_PTRACE. ({last[0].strip()})"
        )
    return f"py-spy failed: {last[0].strip()}"


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


async def _sample(tool: str, pid: int, seconds: float, out: Path) -> tuple[str | None, str]:
    """Stacks (None: it failed; empty: the process did nothing) and py-spy's complaints."""
    arguments = ["--pid", str(pid), "--duration", str(max(1, round(seconds)))]
    arguments += ["--rate", str(_RATE_HZ), "--format", "raw", "--function", "--nonblocking"]
    run = await asyncio.create_subprocess_exec(
        *(tool, "record", *arguments, "--output", str(out)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", "")},
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            _, complaints = await run.communicate()
    except TimeoutError:
        return None, "py-spy did not end in time"
    finally:
        if run.returncode is None:
            run.kill()
    said = complaints.decode(errors="replace")
    if run.returncode == 0:
        return _text(out), said
    return ("", said) if "No stack counts found" in said else (None, said)
