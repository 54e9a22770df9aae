"""The moments with real engines: ``python -m load_tests.pdfaults.real`` in a process of its own.

A prefill and a decode replica stand behind the gateway. For each strike, so many requests with
prompts that nobody has cached are asked at once; each is held where the moment is until all are
there, then the replica is lost. One request so struck is one injection. Before that, an engine that
knows of no hand-off has answered them all, undisturbed.

Reads a job as JSON from standard input, writes one line ``RESULT {...}`` for each fault.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.gateway.prompts import PromptEncoder
from deployments.pools import pools_of
from deployments.testing.cluster import until
from deployments.testing.world import KEY, World, http_world
from load_tests.pdfaults.engines import HOST, RealReplica
from load_tests.pdfaults.moments import FAULTS, Fault, Point, Side, Way
from weir.samples import requests as desk_requests
from weir.settings import Settings, parse_settings
from weir.tenancy import hash_key

#: Shorter than weir's own, so that what they bound is seen to end in a bench's time.
LEASE_S = 6
PATIENCE_S = 5.0
_TOKENS = 48
_FROZEN_S = 8.0
_ANSWER_S = 90.0
_FREED_S = 30.0
_HELD_S = 5.0
#: Between two strikes: so far back looks the gateway's budget of moves, which one loss of a replica
#: may use up. What it refuses on purpose is no fault of a hand-off.
_APART_S = 10.5
#: Where requests wait for each other before what an engine does.
_BEFORE = {Point.KEEP_BEGUN: Point.KEEP, Point.TAKE_BEGUN: Point.TAKE}
_HOLDS = frozenset({Point.KEEP, Point.KEPT, Point.TAKE})
_ASKED = {"temperature": 0, "max_tokens": _TOKENS, "ignore_eos": True}
_CROWD, _CROWD_CHARACTERS = 40, 4000
CrowdOut = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """``at_once``: requests under one strike."""

    model: str
    faults: Sequence[str]
    times: int
    at_once: int
    seed: int


@dataclass(slots=True)
class Tally:
    """What one fault has come to."""

    injected: int = 0
    asked: int = 0
    wrong: int = 0
    errors: int = 0
    blocks_left: int = 0
    crashed: int = 0
    strikes: int = 0
    problems: list[str] = field(default_factory=list)


def settings(rule: str) -> Settings:
    """One prefill and one decode pool, with short bounds."""
    extra = {"kv_lease_duration": LEASE_S, "transfer_patience_s": PATIENCE_S}
    transfer = {"kv_connector": "NixlConnector", "kv_connector_extra_config": extra}
    pools = [
        {"name": role, "role": role, "engine": {"args": {"kv_transfer_config": transfer}}}
        for role in ("prefill", "decode")
    ]
    return parse_settings(
        {
            "models": [
                {
                    "name": "m",
                    "source": "x",
                    "pools": pools,
                    "routing": {"disaggregation": {"rule": rule}},
                }
            ],
            "tenants": [{"id": "t", "key_sha256": [hash_key(KEY)]}],
            # All of a strike's requests shall be at the moment together.
            "admission": {"limits": {"prefill": {"tokens": 1_000_000}}},
        },
        "weir bench pdfaults",
    )


class Bench:
    """A platform with two replicas that are lost and replaced."""

    def __init__(self, job: Job, world: World, alone: World) -> None:
        self._job = job
        self._world = world
        self._alone = alone
        self._transfers = {
            pool.role: pool.kv_transfer() for pool in pools_of(settings("always").models[0])
        }
        self._replicas: dict[Side, RealReplica] = {}
        self._lives = 0
        self._struck_s = -_APART_S
        self._prompts = 0
        self._desk = [
            [{"role": m["role"], "content": m["content"]} for m in example.messages]
            for example in desk_requests(seed=job.seed, n=64)
        ]

    async def run(self, fault: Fault) -> Tally:
        """So many injections of a fault."""
        tally = Tally()
        while tally.injected < self._job.times:
            if tally.strikes > 3 * (1 + self._job.times // self._job.at_once):
                tally.problems.append("the moment was missed again and again")
                break
            await self._ready()
            await self._strike(fault, tally)
        return tally

    async def _ready(self) -> None:
        """Both replicas run, are connected, and have handed something over before."""
        for side in Side:
            held = self._replicas.get(side)
            if held is None or held.dead:
                self._lives += 1
                made = RealReplica()
                name = f"{side}-{self._lives}"
                await made.start(name, side.value, self._job.model, self._transfers[side.value])
                self._replicas[side] = made
        router, fleet = self._world.model.router, self._world.model.fleet
        router.set_replicas([replica.info for replica in self._replicas.values()])
        await until(lambda: not fleet.unreachable() and not router.avoided(), 20.0)
        body = self._bodies(1)[0]
        await self._ask(self._world, body, "warm")
        await asyncio.sleep(max(0.0, self._struck_s + _APART_S - time.monotonic()))

    async def _strike(self, fault: Fault, tally: Tally) -> None:
        tally.strikes += 1
        bodies = self._bodies(min(self._job.at_once, self._job.times - tally.injected))
        expected = await asyncio.gather(
            *(self._ask(self._alone, body, f"a{n}") for n, body in enumerate(bodies))
        )
        strike = Strike(fault, self._replicas, self._crowd_out)
        for replica in self._replicas.values():
            replica.watched.reached = strike.reached
        strike.answers = [
            asyncio.create_task(self._ask(self._world, body, f"r{n}"))
            for n, body in enumerate(bodies)
        ]
        got = await asyncio.gather(*strike.answers)
        self._struck_s = time.monotonic()
        for replica in self._replicas.values():
            replica.watched.reached = _pass
        tally.injected += strike.struck
        tally.asked += len(bodies)
        for (status, text), (_, right) in zip(got, expected, strict=True):
            if status != 200:
                tally.errors += 1
                tally.problems.append(f"status {status}: {text[:300]}")
            elif text != right:
                tally.wrong += 1
                tally.problems.append(f"{text!r} is not {right!r}")
        await strike.end()
        await self._look(tally)

    async def _look(self, tally: Tally) -> None:
        """What is left: at once on who lives, then on who thawed; who is frozen for good ends."""
        left = {}
        tally.crashed += sum(replica.crashed for replica in self._replicas.values())
        for replica in self._replicas.values():
            if not replica.dead and not replica.frozen:
                left[replica.name] = await replica.blocks_left(_FREED_S)
        for replica in self._replicas.values():
            if replica.frozen:
                await replica.kill()
        await until(lambda: not self._world.outstanding(), _FREED_S)
        tally.blocks_left += sum(left.values())
        if any(left.values()):
            tally.problems.append(f"blocks left: {left}")
            for replica in self._replicas.values():
                if left.get(replica.name):
                    await replica.kill()  # Who comes next shall not be blamed for it.

    async def _crowd_out(self) -> None:
        """Other prompts through the prefill replica, so that blocks that are free are written: more
        of them than its cache has room for."""
        bodies = self._bodies(_CROWD, _CROWD_CHARACTERS)
        await asyncio.gather(
            *(self._ask(self._world, body, f"c{n}") for n, body in enumerate(bodies))
        )

    def _bodies(self, count: int, characters: int = 0) -> list[dict[str, Any]]:
        """Requests with prompts that nobody has had; of that length at least."""
        bodies = []
        for _ in range(count):
            self._prompts += 1
            first, *rest = self._desk[self._prompts % len(self._desk)]
            text = f"{self._prompts} {first['content']} "
            text *= max(1, characters // len(text))
            bodies.append({**_ASKED, "messages": [{**first, "content": text}, *rest]})
        return bodies

    async def _ask(self, world: World, body: dict[str, Any], name: str) -> tuple[int, str]:
        try:
            async with asyncio.timeout(_ANSWER_S), world.post({**body, "id": name}) as answer:
                raw = await answer.read()
        except TimeoutError:
            return 0, f"no answer in {_ANSWER_S:g} s"
        if answer.status != 200:
            return answer.status, raw.decode()
        return 200, str(json.loads(raw)["choices"][0]["message"]["content"])


async def _pass(point: Point, request_id: str) -> None:
    """Nothing is held."""


class Strike:
    """Holds requests at the moment until all are there, and strikes. ``struck``: how many were
    there then, and had no whole answer. What an engine does cannot be held: for that, requests are
    held right before it, and it happens when the engine has been told of all of them."""

    def __init__(
        self, fault: Fault, replicas: Mapping[Side, RealReplica], crowd_out: CrowdOut
    ) -> None:
        self._fault = fault
        self._victim = replicas[fault.moment.side]
        self._crowd_out = crowd_out
        self._there: dict[Point, set[str]] = defaultdict(set)
        self._released = asyncio.Event()
        self._begun = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: Sequence[asyncio.Task[tuple[int, str]]] = ()
        self.struck = 0
        self.over = asyncio.Event()

    async def reached(self, point: Point, request_id: str) -> None:
        """See :class:`load_tests.pdfaults.watching.WatchedGenerator`."""
        if not request_id.startswith("r") or self._begun:
            return
        moment = self._fault.moment.point
        self._there[point].add(request_id)
        whole = len(self._there[point]) == len(self.answers)
        if point is moment and whole:
            await self._lose()
        elif point is _BEFORE.get(moment) and whole:
            self._released.set()
        elif point in (moment, _BEFORE.get(moment)) and point in _HOLDS:
            try:
                async with asyncio.timeout(_HELD_S):
                    await self._released.wait()
            except TimeoutError:  # Somebody went another way.
                if point is moment:
                    await self._lose()
                self._released.set()

    async def _lose(self) -> None:
        if self._begun:
            return
        self._begun = True
        there = self._there[self._fault.moment.point]
        running = sum(not task.done() for task in self.answers)
        self.struck = min(len(there), running)
        way = self._fault.way
        if way is Way.FREED:
            await asyncio.sleep(LEASE_S + 1.0)
            await self._crowd_out()
        elif way is Way.KILLED:
            await self._victim.kill()
        else:
            self._victim.freeze()
        self._released.set()
        if way is Way.FROZEN:
            self._tasks.append(asyncio.get_running_loop().create_task(self._thaw()))
        else:
            self.over.set()

    async def _thaw(self) -> None:
        await asyncio.sleep(_FROZEN_S)
        self._victim.thaw()
        self.over.set()

    async def end(self) -> None:
        """All answers are there; one that never came about is over, too."""
        if self._begun:
            await self.over.wait()


@asynccontextmanager
async def _bench(job: Job) -> AsyncIterator[Bench]:
    encoders = {"m": PromptEncoder(Path(job.model))}
    os.environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] = HOST
    alone = await RealReplica().start("alone", "mixed", job.model, None)
    async with (
        http_world(settings("never"), encoders) as one,
        http_world(settings("always"), encoders) as two,
    ):
        one.model.router.set_replicas([alone.info])
        await until(lambda: not one.model.fleet.unreachable(), 20.0)
        yield Bench(job, two, one)


async def main(job: Job) -> None:
    """All faults of a job."""
    by_name = {fault.name: fault for fault in FAULTS}
    async with _bench(job) as bench:
        for name in job.faults:
            begun_s = time.monotonic()
            tally = await bench.run(by_name[name])
            took_s = time.monotonic() - begun_s
            row = {
                "system": name,
                "table": "vLLM engines, NIXL",
                "injected": tally.injected,
                "strikes": tally.strikes,
                "wrong": tally.wrong,
                "errors": tally.errors,
                "blocks_left": tally.blocks_left,
                "crashed": tally.crashed,
                "took_s": took_s,
                **({"first_problem": tally.problems[0]} if tally.problems else {}),
            }
            print("RESULT " + json.dumps(row), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main(Job(**json.load(sys.stdin))))
    os._exit(0)  # Engines' threads do not end by themselves.
