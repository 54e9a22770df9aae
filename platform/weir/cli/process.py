"""The platform's processes: start the supervisor, find it again, stop it and all it started.

Nothing is found by name. The supervisor is the process with the recorded pid that also has the
recorded create time or run id; what it started are its descendants and the processes that carry
its run id in their environment (so that they are found even when the supervisor was killed).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import psutil

from weir.cli.state import ProcessRecord, State, write_private

MODULE = "deployments.platform"
RUN_ID = "WEIR_RUN_ID"
# The kernel counts in hundredths of a second.
_CREATE_TIME_TOLERANCE_S = 0.05
_AFTER_DRAIN_S = 30.0
_HURRY_S = 15.0
_LEFTOVER_GRACE_S = 2.0


def start(state: State, internal_token: str) -> ProcessRecord:
    """Start the supervisor detached from this terminal and record it in the state folder."""
    run_id = secrets.token_hex(8)
    state.progress_file.unlink(missing_ok=True)
    state.platform_file.unlink(missing_ok=True)
    state.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if state.log_file.exists():
        state.log_file.replace(state.log_file.with_suffix(".log.1"))
    # -P: the folder that the user happens to stand in must not shadow any module.
    command = [sys.executable, "-P", "-m", MODULE]
    command += ["--settings", str(state.settings_file), "--state", str(state.folder)]
    with state.log_file.open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=state.folder,
            env=_environment(run_id, internal_token),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), run_id)
    write_private(state.supervisor_file, json.dumps(asdict(record)) + "\n")
    with warnings.catch_warnings():
        # Letting go of a running child is what "detached" means here.
        warnings.simplefilter("ignore", ResourceWarning)
        del child
    return record


def _environment(run_id: str, internal_token: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    if path := env.get("PYTHONPATH"):
        entries = (os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
        env["PYTHONPATH"] = os.pathsep.join(entries)
    return env | {"WEIR_INTERNAL_TOKEN": internal_token, RUN_ID: run_id}


def find(record: ProcessRecord | None) -> psutil.Process | None:
    """The recorded supervisor, if that very process is alive."""
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.create_time) < _CREATE_TIME_TOLERANCE_S
        # A step of the system's clock moves create times, but not the run id.
        same = same or _carries(process, record)
        return process if same and alive(process) else None
    except psutil.Error:
        return None


def _carries(process: psutil.Process, record: ProcessRecord) -> bool:
    try:
        return bool(record.run_id) and process.environ().get(RUN_ID) == record.run_id
    except (psutil.Error, OSError):
        return False


def alive(process: psutil.Process) -> bool:
    """False for one that ended, its pid reused, or that only waits to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def family(record: ProcessRecord) -> list[psutil.Process]:
    """All processes of this run that are alive, without the supervisor itself."""
    members: dict[int, psutil.Process] = {}
    if supervisor := find(record):
        members |= {p.pid: p for p in _descendants(supervisor)}
    for process in psutil.process_iter():
        if _carries(process, record):
            members[process.pid] = process
            members |= {p.pid: p for p in _descendants(process)}
    not_ours = {record.pid, os.getpid()}
    return [p for pid, p in members.items() if pid not in not_ours and alive(p)]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


@dataclass(frozen=True, slots=True)
class Stopped:
    """``graceful``: the supervisor ended by itself. ``leftovers``: names of what it left behind."""

    graceful: bool
    leftovers: tuple[str, ...]
    seconds: float


def stop(
    state: State,
    record: ProcessRecord,
    drain_timeout_s: float,
    on_wait: Callable[[float], None] = lambda _: None,
) -> Stopped:
    """Stop the platform: SIGTERM and the time to drain, then hurry it, then end it.

    ``on_wait`` is called with the seconds waited so far; if it raises KeyboardInterrupt, the
    supervisor is told to hurry.
    """
    started = time.monotonic()
    members = family(record)
    supervisor = find(record)
    graceful = True
    if supervisor is not None:
        graceful = _end_supervisor(supervisor, drain_timeout_s + _AFTER_DRAIN_S, on_wait)
    members += family(record)
    leftovers = _end_leftovers(members)
    for file in (state.platform_file, state.supervisor_file):
        file.unlink(missing_ok=True)
    return Stopped(graceful, leftovers, time.monotonic() - started)


def _end_supervisor(
    supervisor: psutil.Process, patience_s: float, on_wait: Callable[[float], None]
) -> bool:
    """True if it ended without being killed. The first interrupt only shortens the wait."""
    started = time.monotonic()
    for patience in (patience_s, _HURRY_S):
        if alive(supervisor):
            supervisor.terminate()
        deadline = time.monotonic() + patience
        try:
            while alive(supervisor) and time.monotonic() < deadline:
                on_wait(time.monotonic() - started)
                _pause(supervisor)
        except KeyboardInterrupt:
            continue
    if not alive(supervisor):
        return True
    supervisor.kill()
    psutil.wait_procs([supervisor], timeout=5)
    return False


def _pause(process: psutil.Process) -> None:
    # Waiting on the process also reaps it where this command is its parent.
    try:
        process.wait(timeout=0.2)
    except psutil.TimeoutExpired:
        return


def _end_leftovers(members: Iterable[psutil.Process]) -> tuple[str, ...]:
    unique = list({process.pid: process for process in members if alive(process)}.values())
    _wait_until_gone(unique, _LEFTOVER_GRACE_S)
    left = [process for process in unique if alive(process)]
    names = tuple(f"{_name(process)} (pid {process.pid})" for process in left)
    for signal_one, patience in ((psutil.Process.terminate, 5.0), (psutil.Process.kill, 5.0)):
        for process in left:
            try:
                signal_one(process)
            except psutil.Error:
                continue
        _wait_until_gone(left, patience)
        left = [process for process in left if alive(process)]
    return names


def _wait_until_gone(processes: list[psutil.Process], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while any(alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"
