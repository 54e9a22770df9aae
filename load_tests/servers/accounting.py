"""CPU time and memory of a server's processes, by what they do.

From /proc: CPU time is what the kernel charged (10 ms ticks; a window holds hundreds of them),
PSS counts a shared page once, split between those who share it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ENGINE_NAME = "engine-core"
ENDED = "ended: the deployer and other helpers"

# The first pattern that is found in a process's command line names its role.
ROLES: tuple[tuple[str, str], ...] = (
    (r"^VLLM::(EngineCore|Worker)|^ray::RayWorker", "engine"),
    (r"^ray::ServeReplica:[^:]*:(?P<name>[\w-]+)", "replica {name}"),
    (r"^ray::ServeController", "serve controller"),
    (r"^ray::\w*Proxy", "serve proxy actor"),
    (r"^ray::IDLE", "ray idle worker"),
    (r"^ray::(?P<name>\w+)", "ray worker {name}"),
    (r"^\S*haproxy\b", "haproxy"),
    (r"gcs_server|raylet/raylet", "ray core"),
    (r"dashboard|log_monitor|/monitor\.py|runtime_env_agent", "ray agents"),
    (r"redis-server", "redis"),
    (r"deployments\.platform", "supervisor"),
    (r"chunk_upstream", "upstream"),
    (r"resource_tracker", "python resource tracker"),
)


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU seconds so far, by (pid, role)."""

    seconds: Mapping[tuple[int, str], float]


class Accounts:
    """Reads a fixed set of processes. Make one shortly before the window, so that a reading at
    the window's edge does not have to search for them."""

    def __init__(self, pids: Sequence[int], proc: Path = PROC) -> None:
        self._proc = proc
        self._pids = tuple(pids)
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")

    def read(self) -> CpuReading:
        """CPU time now; processes that are gone are left out."""
        seconds: dict[tuple[int, str], float] = {}
        for pid in self._pids:
            with contextlib.suppress(OSError):
                folder = self._proc / str(pid)
                role = _role(folder)
                seconds[pid, role] = self._cpu_s(folder / "stat")
        return CpuReading(seconds)

    def _cpu_s(self, stat: Path) -> float:
        # The name in brackets may hold spaces; utime and stime are fields 14 and 15.
        fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * self._tick_s


def cpu_by_role(pids: Sequence[int], proc: Path = PROC) -> dict[str, float]:
    """CPU seconds since each process began, by role, the largest first; what their children spent
    that have ended is told apart, as ``ENDED``."""
    spent: Counter[str] = Counter()
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    for pid in pids:
        folder = proc / str(pid)
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            # utime, stime, cutime and cstime are fields 14 to 17.
            own, ended = (sum(map(int, fields[n : n + 2])) * tick_s for n in (11, 13))
            spent[_role(folder)] += own  # type: ignore[assignment]
            spent[ENDED] += ended  # type: ignore[assignment]
    return dict(spent.most_common())


def cpu_between(before: CpuReading, after: CpuReading) -> dict[str, float]:
    """CPU seconds spent between two readings, by role, the largest first. A process that was not
    there before counts from its start; one that ended in between is not counted."""
    spent: Counter[str] = Counter()
    earlier = {(pid, role): value for (pid, role), value in before.seconds.items()}
    for (pid, role), value in after.seconds.items():
        spent[role] += max(0.0, value - earlier.get((pid, role), 0.0))  # type: ignore[assignment]
    return dict(spent.most_common())


@dataclass(frozen=True, slots=True)
class Memory:
    """MB (10^6 bytes). ``pss_mb`` of several processes may be added up; ``rss_mb`` not really."""

    processes: int
    rss_mb: float
    pss_mb: float


def memory_by_role(pids: Sequence[int], proc: Path = PROC) -> dict[str, Memory]:
    """Memory by role, the largest first."""
    found: dict[str, Memory] = {}
    for pid in pids:
        folder = proc / str(pid)
        with contextlib.suppress(OSError):
            rollup = (folder / "smaps_rollup").read_text("utf-8")
            role = _role(folder)
            old = found.get(role, Memory(0, 0.0, 0.0))
            found[role] = Memory(
                old.processes + 1,
                old.rss_mb + _kib(rollup, "Rss") * 1024 / 1e6,
                old.pss_mb + _kib(rollup, "Pss") * 1024 / 1e6,
            )
    return dict(sorted(found.items(), key=lambda item: -item[1].pss_mb))


def _role(folder: Path) -> str:
    # A forked engine keeps its parent's command line, and says what it is by its name.
    if (folder / "comm").read_text("utf-8", "replace").strip() == ENGINE_NAME:
        return "engine"
    return role_of(_command_line(folder))


def role_of(command_line: str) -> str:
    """What a process does, from its command line (which many set to a title)."""
    for pattern, role in ROLES:
        if match := re.search(pattern, command_line):
            return role.format(**match.groupdict())
    return "server"


def _command_line(folder: Path) -> str:
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()


def _kib(rollup: str, key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) if match else 0
