"""Gateways and Redis that are killed, and replicas that freeze, at set shares of the requests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import aiohttp

from load_tests.batch.kills import kill_one
from load_tests.loadgen import Target
from load_tests.migration.replicas import Fleet
from load_tests.money.platform import MODEL, Live
from load_tests.servers import StartError

Accident = Literal["gateway", "redis", "freeze"]
#: At which share of the requests.
COURSE: tuple[tuple[float, Accident], ...] = (
    (0.10, "gateway"),
    (0.20, "freeze"),
    (0.30, "redis"),
    (0.40, "gateway"),
    (0.50, "freeze"),
    (0.60, "gateway"),
    (0.65, "redis"),
    (0.75, "freeze"),
    (0.85, "gateway"),
)
#: Longer than a replica may be silent, shorter than Ray Serve waits before it replaces one.
FREEZE_S = 5.0
_POLL_S = 0.05


@dataclass(slots=True)
class Accidents:
    """``in_flight``: requests under way by tenant; ``progress``: the share that has ended.

    ``done`` counts what happened; ``lost``: for each tenant, how many requests of it were under way
    when gateways were killed.
    """

    live: Live
    in_flight: Mapping[str, int]
    progress: Callable[[], float]
    course: Sequence[tuple[float, Accident]] = COURSE
    done: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    async def run(self, http: aiohttp.ClientSession) -> None:
        """All of them, one after the other. What cannot be done is left out, and not counted."""
        host, _, port = self.live.url.removeprefix("http://").partition(":")
        fleet = Fleet(Target(host, int(port)), MODEL, self.live.internal, self.live.started)
        for share, accident in self.course:
            while self.progress() < share:  # noqa: ASYNC110 - clients make it grow
                await asyncio.sleep(_POLL_S)
            with contextlib.suppress(StartError):
                await self._happen(accident, fleet, http)
                self.done[accident] += 1

    async def _happen(self, accident: Accident, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        if accident == "gateway":
            await asyncio.to_thread(kill_one, self.live.started, "gateway")
            self.lost.update(dict(self.in_flight))
        elif accident == "redis":
            (await asyncio.to_thread(self.live.process, "Redis")).kill()
        else:
            await fleet.ask(http)
            if not fleet.up:
                raise StartError("no replica is up", "")
            await _freeze(fleet, fleet.up[0])


async def _freeze(fleet: Fleet, replica_id: str) -> None:
    family = fleet.families[replica_id]
    try:
        for process in family:
            process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FREEZE_S)
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)
        fleet.seen_s[replica_id] = asyncio.get_running_loop().time()
