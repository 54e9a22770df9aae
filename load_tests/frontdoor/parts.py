"""The processes of one running platform, found by its state folder."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

GATEWAY = "ServeReplica:weir:gateway"
CONTROLLER = "ServeController"


@dataclass(frozen=True, slots=True)
class Socket:
    """Where a process waits for others. ``process`` says what it is."""

    process: str
    ip: str
    port: int


class Parts:
    """``home``: the platform's WEIR_HOME. Looks anew at each call: parts are replaced."""

    def __init__(self, home: Path) -> None:
        self._home = home
        record = json.loads((home / "supervisor.json").read_text("utf-8"))
        self.supervisor = psutil.Process(int(record["pid"]))
        self._run_id = str(record["run_id"])

    def named(self, part: str) -> psutil.Process:
        """``HAProxy`` or ``Redis``, as the supervisor recorded it."""
        parts = json.loads((self._home / "platform.json").read_text("utf-8"))["parts"]
        return psutil.Process(int(parts[part]["pid"]))

    def family(self) -> list[psutil.Process]:
        """All processes of this run that are alive."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("WEIR_RUN_ID") == self._run_id:
                    found[process.pid] = process
                    found |= {child.pid: child for child in process.children(recursive=True)}
        return [p for pid, p in found.items() if pid != os.getpid() and p.is_running()]

    def titled(self, words: str) -> list[psutil.Process]:
        """Processes whose command line has these words."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def active_gateway(self) -> psutil.Process:
        """The gateway that HAProxy is connected to; there must be traffic now."""
        peers = [c.raddr.port for c in self.named("HAProxy").net_connections("tcp") if c.raddr]

        def connections(gateway: psutil.Process) -> int:
            own = {c.laddr.port for c in gateway.net_connections("tcp") if c.status == "LISTEN"}
            return sum(port in own for port in peers)

        return max(self.titled(GATEWAY), key=connections)

    def listening(self) -> list[Socket]:
        """Every TCP socket that accepts and every UDP socket of the whole family."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                name = " ".join(process.cmdline())[:60].strip()
                for one in process.net_connections("inet"):
                    waits = one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
                    if waits and one.laddr:
                        found.append(Socket(name, one.laddr.ip, one.laddr.port))
        return found

    def unix_sockets(self) -> set[Path]:
        """Paths of all Unix sockets of the whole family."""
        found = set()
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                # Where it is a path; addresses of unnamed sockets are empty.
                paths = (str(one.laddr) for one in process.net_connections("unix"))
                found |= {Path(path) for path in paths if path.startswith("/")}
        return found

    def pss_mb(self) -> float:
        """Memory of the whole family, a shared page counted once."""
        total = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss / 1e6
        return total
