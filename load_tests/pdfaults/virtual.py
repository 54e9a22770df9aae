"""The moments in virtual time: the gateway that ships, stand-ins for engines and network."""

from __future__ import annotations

import asyncio
import functools
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.cluster import Cluster, Host, until
from deployments.testing.in_memory import MemoryCluster, memory_cluster
from deployments.testing.judging import ask, right_answers
from deployments.testing.kinds import KINDS, TONE, USUAL_TASKS, Kind, agrees
from deployments.testing.words import word_encoder
from load_tests.pdfaults.moments import FAULTS, Fault, Point, Side, Way
from load_tests.pdfaults.watching import WatchedGenerator
from weir.settings import ModelSettings, RoutingSettings, Settings, TenantSettings
from weir.settings.routing import DisaggregationSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time

#: Those whose prompts are handed over.
ASKED = tuple(
    kind
    for kind in KINDS
    if kind.streams
    and kind.tasks == USUAL_TASKS
    and not kind.background
    and kind.name not in ("image", "echo")
)
_TOKENS = 24
_PATIENCE_S = 120.0
_FROZEN_S = 6.0
_FREED_S = 30.0


@dataclass(slots=True)
class Play:
    """One fault under one request. ``problems``: empty when all was as it should be."""

    fault: Fault
    struck: bool = False
    problems: list[str] = field(default_factory=list)


@functools.cache
def _settings() -> Settings:
    routing = RoutingSettings(disaggregation=DisaggregationSettings(rule="always"))
    model = ModelSettings(name="m", source="x", routing=routing, adapters=(TONE,))
    return Settings(
        models=(model,), tenants=(TenantSettings(id="one", key_sha256=(hash_key("one"),)),)
    )


def play(fault: Fault, seed: int, encoder: PromptEncoder) -> Play:
    """A request of a random kind, and the fault at its moment."""
    played = Play(fault)
    try:
        virtual_time.run(_play(played, Random(f"pdfaults|{fault.name}|{seed}"), encoder))
    except (virtual_time.VirtualTimeError, AssertionError, TimeoutError) as error:
        played.problems.append(f"{type(error).__name__}: {error}")
    return played


async def _play(played: Play, random: Random, encoder: PromptEncoder) -> None:
    kind, stream = random.choice(ASKED), random.random() < 0.7
    interval_s = random.choice((0.01, 0.05, 0.1))
    async with memory_cluster(_settings(), encoder, random.randrange(1 << 30)) as cluster:
        hosts = {
            Side.PREFILL: await cluster.add("p", interval_s, role="prefill"),
            Side.DECODE: await cluster.add("d", interval_s, role="decode"),
        }
        strike = _Strike(played, cluster, hosts[played.fault.moment.side], random)
        for host in hosts.values():
            watched = WatchedGenerator(host.generator)
            watched.reached = strike.reached
            for connection in host.streams._connections:
                connection._generator = watched
        limit: dict[str, Any] = {kind.limit_field: _TOKENS}
        told = ask(cluster, kind, 1, stream, "one", "r", **limit)
        async with asyncio.timeout(_PATIENCE_S):
            await told.done()
        played.problems += _wrong(cluster, kind, stream, told)
        await strike.end()
        try:
            await cluster.idle(_FREED_S)
        except AssertionError as error:
            played.problems.append(str(error))


def _wrong(cluster: Cluster, kind: Kind, stream: bool, told: Any) -> list[str]:
    if told.status != 200:
        return [f"status {told.status}: {bytes(told.raw)[:200]!r}"]
    answer = kind.read(bytes(told.raw), stream)
    right = right_answers(cluster, kind, "r", 1)
    if answer.error is not None or not answer.complete:
        return [f"{kind.name}: {answer}"]
    same = len(answer.said) == len(right) and all(map(agrees, answer.said, right))
    return [] if same else [f"{kind.name}: {answer.said} is not {right}"]


class _Strike:
    """Strikes once, when the first choice of the request reaches the moment. It waits for that in a
    task of its own: what a replica's tasks begin stands still with it."""

    def __init__(self, played: Play, cluster: MemoryCluster, host: Host, random: Random) -> None:
        self._played = played
        self._cluster = cluster
        self._host = host
        self._due = asyncio.Event()
        self._done = asyncio.Event()
        # Where a request is held, it is a moment longer there.
        self._later_s = random.choice((0.0, 0.0, 0.001, 0.03))
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def reached(self, point: Point, request_id: str) -> None:
        """See :class:`WatchedGenerator`."""
        if point is self._played.fault.moment.point and not self._played.struck:
            self._played.struck = True
            self._due.set()
            await self._done.wait()

    async def _run(self) -> None:
        await self._due.wait()
        await asyncio.sleep(self._later_s)
        way, host = self._played.fault.way, self._host
        if way is Way.FREED:
            await asyncio.sleep(3.0)  # The lease of KeptBlocks is 2 s.
        elif way is Way.KILLED:
            await host.kill()
        else:
            host.freeze()
            host.freeze_engine()
        self._done.set()
        if way is Way.FROZEN:
            await asyncio.sleep(_FROZEN_S)
            host.thaw_engine()
            host.thaw()

    async def end(self) -> None:
        """The answer is there: what is frozen for good ends."""
        if not self._played.struck:
            self._work.cancel()
            return
        await self._work
        if self._played.fault.way is Way.FROZEN_FOR_GOOD:
            await until(lambda: not self._cluster.gateway_left_over(), _FREED_S)
            await self._host.kill()
            self._host.thaw_engine()


def row(fault: Fault, times: int, seed: int) -> dict[str, Any]:
    """A fault that many times, each under another request."""
    logging.disable(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            encoder = word_encoder(Path(folder))
            plays = [play(fault, seed * 1_000_000 + n, encoder) for n in range(times)]
    finally:
        logging.disable(logging.NOTSET)
    problems = Counter(problem for each in plays for problem in each.problems)
    return {
        "system": fault.name,
        "table": "virtual time",
        "injected": sum(each.struck for each in plays),
        "wrong": sum(bool(each.problems) for each in plays),
        **({"first_problem": next(iter(problems))} if problems else {}),
    }


def rows(times: int, seed: int) -> list[dict[str, Any]]:
    """All faults."""
    return [row(fault, times, seed) for fault in FAULTS]
