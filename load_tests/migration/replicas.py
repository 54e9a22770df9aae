"""A model's replicas as the platform tells them, and as processes that can be killed or frozen."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import aiohttp
import psutil

from load_tests.loadgen import Target
from load_tests.servers import Started, StartError
from load_tests.servers.process import processes

_TITLE = "ServeReplica:"
_CONTROLLER = "ServeController"
_STARTING = re.compile(r"(\d{4}-\d\d-\d\d) ([\d:,]+) .*Starting Replica\(id='(\w+)'")
_POLL_S = 1.0
_ASK_TIMEOUT_S = 3.0


@dataclass(slots=True)
class Fleet:
    """Follows ``/weir/status``. ``families``: each replica's process and its engine, looked up when
    it is first seen. ``gone`` are replicas that were killed or frozen here and have not come back:
    they do not count as up, whatever the status still says of them."""

    target: Target
    model: str
    internal_token: str
    started: Started
    addresses: dict[str, str] = field(default_factory=dict)
    families: dict[str, list[psutil.Process]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    seen_s: dict[str, float] = field(default_factory=dict)

    @property
    def up(self) -> list[str]:
        """Replicas that can answer, the longest known first."""
        there = [rid for rid in self.addresses if rid in self.families and rid not in self.gone]
        return sorted(there, key=lambda rid: self.seen_s[rid])

    async def ask(self, http: aiohttp.ClientSession) -> None:
        """Read the status once. One that cannot be read leaves what was known."""
        url = f"http://{self.target.host}:{self.target.port}/weir/status"
        headers = {"Authorization": f"Bearer {self.internal_token}"}
        timeout = aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
        try:
            async with http.get(url, headers=headers, timeout=timeout) as response:
                told = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return
        self.addresses = {
            replica["replica_id"]: replica["address"]
            for deployment in told.get("deployments", ())
            if deployment["name"].partition("+")[0] == f"model-{self.model}"  # or a pool of it
            for replica in deployment["replicas"]
            if replica["replica_id"]
        }
        for replica_id in self.addresses.keys() - self.families.keys():
            # In a thread: looking through /proc takes long enough to show in what clients measure.
            family = await asyncio.to_thread(self._family, self.addresses[replica_id])
            if family:
                self.families[replica_id] = family
                self.seen_s[replica_id] = time.monotonic()

    def _family(self, address: str) -> list[psutil.Process]:
        """The process that listens at a replica's address, and its engine; empty if there is none.

        Only processes that this bench's platform has started are looked at.
        """
        port = int(address.rpartition(":")[2])
        for process in processes(self.started.pids()):
            with contextlib.suppress(psutil.Error):
                if _TITLE not in " ".join(process.cmdline()):
                    continue
                ports = {c.laddr.port for c in process.net_connections("tcp") if not c.raddr}
                if port in ports:
                    return [process, *process.children(recursive=True)]
        return []


def replicas_asked_for(started: Started) -> dict[str, float]:
    """When Serve asked for each replica, in seconds since the epoch, by its controller's log.

    Raises:
        StartError: the log is not where it is looked for, or says nothing of replicas.
    """
    found: dict[str, float] = {}
    for process in processes(started.pids()):
        with contextlib.suppress(psutil.Error):
            if _CONTROLLER in " ".join(process.cmdline()):
                logs = {Path(file.path) for file in process.open_files()}
                for log in logs:
                    if log.name.startswith("controller_"):
                        found |= dict(asked_in(log.read_text("utf-8", "replace")))
    if not found:
        raise StartError("Serve's controller has logged no start of a replica", "")
    return found


def asked_in(log: str) -> Iterator[tuple[str, float]]:
    """Replicas in a controller's log, and when each was asked for, in seconds since the epoch."""
    for day, clock, replica in _STARTING.findall(log):
        when = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S,%f").astimezone()
        yield replica, when.timestamp()


@dataclass(slots=True)
class Attendance:
    """How much of a phase passed with no replica up, and how often that began."""

    none_s: float = 0.0
    times: int = 0

    async def follow(self, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        """Until cancelled."""
        empty_since_s: float | None = None
        try:
            while True:
                await fleet.ask(http)
                now_s = time.monotonic()
                if fleet.up and empty_since_s is not None:
                    self.none_s += now_s - empty_since_s
                    empty_since_s = None
                elif not fleet.up and empty_since_s is None:
                    self.times += 1
                    empty_since_s = now_s
                await asyncio.sleep(_POLL_S)
        finally:
            if empty_since_s is not None:
                self.none_s += time.monotonic() - empty_since_s


@dataclass(slots=True)
class Faults:
    """Kills a replica's process every ``every_s``, or stops it with its engine and lets it go on
    after ``stop_s``. ``done``: when, and which replica; ``skipped``: no replica was up."""

    fleet: Fleet
    every_s: float
    stop_s: float | None
    done: list[tuple[float, str]] = field(default_factory=list)
    skipped: int = 0

    async def run(self, seconds: float) -> None:
        """The longest known replica that is up is next, so that all have their turn."""
        end_s = time.monotonic() + seconds
        await asyncio.sleep(self.every_s / 2)
        while time.monotonic() < end_s:
            next_s = time.monotonic() + self.every_s
            up = self.fleet.up
            if not up:
                self.skipped += 1
            elif self.stop_s is None:
                self._begin(up[0])
                _signal(self.fleet.families[up[0]][:1], signal.SIGKILL)
            else:
                await self._freeze(up[0], self.fleet.families[up[0]], self.stop_s)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    def _begin(self, replica_id: str) -> None:
        self.fleet.gone.add(replica_id)
        self.done.append((time.monotonic(), replica_id))

    async def _freeze(self, replica_id: str, family: list[psutil.Process], stop_s: float) -> None:
        self._begin(replica_id)
        try:
            _signal(family, signal.SIGSTOP)
            await asyncio.sleep(stop_s)
        finally:
            _signal(family, signal.SIGCONT)
            self.fleet.gone.discard(replica_id)
            self.fleet.seen_s[replica_id] = time.monotonic()


def _signal(family: list[psutil.Process], number: signal.Signals) -> None:
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


async def counters(
    http: aiohttp.ClientSession, target: Target, internal_token: str
) -> Mapping[str, float]:
    """The gateway's counters of moved streams, by name (and reason)."""
    url = f"http://{target.host}:{target.port}/metrics"
    headers = {"Authorization": f"Bearer {internal_token}"}
    async with http.get(url, headers=headers) as response:
        response.raise_for_status()
        text = await response.text()
    wanted = (
        "weir_recomputed_tokens_total",
        "weir_stream_moves_total",
        "weir_dispatch_retries_total",
    )
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, labels = line.partition("{")
        if name in wanted:
            reason = "drain" if 'reason="drain"' in labels else ""
            key = f"{name} {reason}".strip()
            found[key] = found.get(key, 0.0) + float(line.rpartition(" ")[2])
    return found
