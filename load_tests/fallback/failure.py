"""All replicas of the teacher are killed during traffic."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from load_tests.fallback.overload import session, share
from load_tests.fallback.platform import STUDENT, TEACHER, Live
from load_tests.fallback.traffic import Client, Flow, Outcome, open_loop
from load_tests.servers.process import processes
from weir import samples

LOAD_PART = 0.6
PLAIN_SHARE = 0.3
KILL_AFTER_S = 5.0


@dataclass(slots=True)
class Killed:
    """What happened; times are monotonic seconds. ``up_s``: the gateway had a replica again."""

    outcomes: list[Outcome] = field(default_factory=list)
    at_s: float = 0.0
    replicas: int = 0
    noticed_s: float | None = None
    up_s: float | None = None


async def run(
    live: Live, source: Iterator[samples.Example], capacity: float, seconds: float, seed: int
) -> Killed:
    """Traffic for ``seconds``; the replicas die after :data:`KILL_AFTER_S`."""
    killed = Killed()
    flows = [Flow("interactive", LOAD_PART * capacity)]
    async with session() as http:
        client = Client(http, live.url, live.tenants.spills)

        def ask(example: samples.Example, priority: str, due_s: float, stream: bool) -> Any:
            return client.ask(example, TEACHER, due_s=due_s, priority=priority, stream=stream)

        accident = asyncio.ensure_future(_kill(live, http, killed, seconds))
        rng = random.Random(seed)
        killed.outcomes = await open_loop(ask, source, flows, seconds, rng, PLAIN_SHARE)
        await accident
    return killed


async def _kill(live: Live, http: aiohttp.ClientSession, killed: Killed, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    await asyncio.sleep(KILL_AFTER_S)
    victims = teacher_processes(live)
    killed.at_s = time.monotonic()
    for victim in victims:
        victim.kill()
    killed.replicas = len(victims)
    while time.monotonic() < end_s and killed.up_s is None:
        await asyncio.sleep(0.1)
        key = {"Authorization": f"Bearer {live.tenants.spills}"}
        async with http.get(f"{live.url}/ready", headers=key) as response:
            ready = await response.json()
        count = ready["replicas"][TEACHER] if response.status == 200 else 0
        if not count and killed.noticed_s is None:
            killed.noticed_s = time.monotonic()
        if count and killed.noticed_s is not None:
            killed.up_s = time.monotonic()


def teacher_processes(live: Live) -> list[psutil.Process]:
    """The replicas' own processes, by the title that Ray gives them; engines die with them."""
    title = f"model-{TEACHER}"
    named = [p for p in processes(live.started.pids()) if title in " ".join(p.cmdline())]
    pids = {process.pid for process in named}
    return [process for process in named if process.ppid() not in pids]


def row(killed: Killed) -> dict[str, Any]:
    """The figures of the accident."""
    outcomes, at_s = killed.outcomes, killed.at_s
    unbegun = [o for o in outcomes if not (o.error and o.begun)]
    after = [o for o in outcomes if o.first_s is not None and o.first_s > at_s and not o.error]
    student = [o.first_s for o in after if o.spill == "failure" and o.first_s is not None]
    teacher = [
        o.first_s
        for o in after
        if o.model == TEACHER and killed.up_s and o.first_s and o.first_s > killed.up_s - 0.2
    ]
    return {
        "system": "weir, teacher's replicas killed",
        "table": "failure, live",
        "replicas_killed": killed.replicas,
        "requests": len(outcomes),
        "in_flight_at_the_kill": sum(1 for o in outcomes if o.due_s < at_s < o.end_s),
        "errors_before_any_output": sum(1 for o in unbegun if o.error),
        "client_visible_error_ratio": share(unbegun, lambda o: bool(o.error)),
        "streams_begun_that_broke": sum(1 for o in outcomes if o.error and o.begun),
        "first_student_answer_after_kill_s": min(student) - at_s if student else None,
        "membership_lost_after_kill_s": killed.noticed_s - at_s if killed.noticed_s else None,
        "teacher_replica_up_after_kill_s": killed.up_s - at_s if killed.up_s else None,
        "first_teacher_answer_after_it_was_up_s": (
            max(0.0, min(teacher) - killed.up_s) if teacher and killed.up_s else None
        ),
        "by_student_ratio": share(after, lambda o: o.model == STUDENT),
        "accuracy_of_answers_after_kill": share(after, lambda o: o.right),
    }
