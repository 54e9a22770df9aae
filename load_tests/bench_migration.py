"""Replicas die or freeze under long streams: what do clients see of it?

Closed loops of long greedy streams (200 to 400 tokens) through the front door of the platform:

  real   200 streams over two vLLM replicas of the teacher
  stub   1,000 streams over four replicas of the stub engine

The platform answers each prompt once, undisturbed. Then there are three phases on the same
prompts: without faults; with a replica's process killed every few seconds (SIGKILL: its engine dies
with it, Serve starts another replica); with a replica and its engine stopped as often (SIGSTOP) and
let go on after a while (SIGCONT). The replica that has been up the longest is next; if none is up,
the fault is left out and counted.

A client-visible error is any answer that is not complete: refused, broken off, or of the wrong
length. A seam is where a stream was under way on the replica that a fault hit; the gap at a seam is
the longest time between two arrivals there. Answers in the phase without faults are compared with
the undisturbed ones too: what differs there differs by how the engine batches, not by a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from load_tests.loadgen import Target, chat_bodies
from load_tests.migration.answers import Answer
from load_tests.migration.load import Question, StreamLoad
from load_tests.migration.replicas import Attendance, Faults, Fleet, counters
from load_tests.migration.rows import CALM, KILL, STOP, Phase, marks, row
from load_tests.migration.worlds import World, all_worlds, questions
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit
from load_tests.servers import (
    EngineWorkload,
    Launch,
    Started,
    StartError,
    Unavailable,
    engine_workload,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.choosing import chosen
from load_tests.servers.first_answer import await_answer

NOTES = (
    "equal_to_undisturbed_ratio is of complete answers; those that are not complete are errors",
    "the gateway's counters: moves have output already, retries have none; tokens_computed_twice "
    "are the tokens of prompts and outputs that moved streams brought to their new replicas",
    "goodput counts tokens of complete answers that equal the undisturbed ones, within the window",
)
_WHOLE_AGAIN_S = 120.0
_ANSWER_PATIENCE_S = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each phase lasts, how often a fault comes, and how long a stop takes."""

    calm_s: float
    seconds: float
    every_s: float
    stop_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        workload = engine_workload(options.model)
        worlds = chosen(all_worlds(workload, options.quick), options.only)
    except (Unavailable, ValueError) as error:
        parser.error(str(error))
    unwind_on_sigterm()
    _allow_many_sockets()
    rows: list[Row] = []
    found: list[Mark] = []
    for world in worlds:
        try:
            phases, expected = _measure(world, workload, options)
        except (StartError, Unavailable) as error:
            say(f"{world.title}: {error}")
            say(getattr(error, "log_tail", ""))
            rows.append({**absent_row("all phases", str(error)), "table": world.title})
            continue
        for phase in phases:
            figures = row(world.title, phase, expected)
            rows.append(figures)
            found += marks(world.title, phase, figures)
    return emit(Report("migration", options.seed, rows, found, NOTES), options, argv)


def _measure(
    world: World, workload: EngineWorkload, options: argparse.Namespace
) -> tuple[list[Phase], Mapping[int, str]]:
    """All phases on one start of a world's platform, and each prompt's undisturbed text.

    Raises:
        StartError: it does not come up, or does not answer undisturbed.
    """
    seconds = options.seconds or (30.0 if options.quick else 120.0)
    plan = Plan(min(30.0, seconds), seconds, options.every_s, options.stop_s)
    tokens = (60, 120) if options.quick else (200, 400)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        launches, target = world.launch(Path(folder))
        with start(launches, target, options.keep_logs) as server:
            body = chat_bodies(workload.served_name, ["hello"], 2)[0]
            await_answer(target, body, _ANSWER_PATIENCE_S)
            asked = questions(workload, target, world.streams, tokens, options.seed)
            run = _Run(world, workload.served_name, asked, _token(launches), server)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(run.all_phases(plan))


class _Run:
    """One platform under load."""

    def __init__(
        self, world: World, model: str, asked: Sequence[Question], token: str, server: Started
    ) -> None:
        self._world = world
        self._target: Target = server.target
        self._load = StreamLoad(server.target, asked, world.streams)
        self._fleet = Fleet(server.target, model, token, server)

    async def all_phases(self, plan: Plan) -> tuple[list[Phase], Mapping[int, str]]:
        async with aiohttp.ClientSession() as http:
            await self._until_whole(http)
            expected = await self._undisturbed()
            phases = [await self._phase(http, CALM, plan, None)]
            for name, stop_s in ((KILL, None), (STOP, plan.stop_s)):
                faults = Faults(self._fleet, plan.every_s, stop_s)
                phases.append(await self._phase(http, name, plan, faults))
                await self._until_whole(http)
        return phases, expected

    async def _undisturbed(self) -> Mapping[int, str]:
        start_s = time.monotonic()
        answers = await self._load.each_once()
        if bad := next((a for a in answers if a.error is not None), None):
            raise StartError(f"undisturbed, an answer failed: {bad.error}", "")
        say(f"{self._world.title}: undisturbed after {time.monotonic() - start_s:.0f} s")
        return {answer.prompt: answer.text for answer in answers}

    async def _phase(
        self, http: aiohttp.ClientSession, name: str, plan: Plan, faults: Faults | None
    ) -> Phase:
        window_s = plan.seconds if faults else plan.calm_s
        before = await counters(http, self._target, self._fleet.internal_token)
        attendance = Attendance()
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        beside = [asyncio.create_task(attendance.follow(self._fleet, http))]
        if faults:
            beside.append(asyncio.create_task(faults.run(window_s)))
        try:
            answers = await self._load.for_s(window_s)
        finally:
            for task in beside:
                task.cancel()
            for task in beside:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        after = await counters(http, self._target, self._fleet.internal_token)
        self._tell(name, answers)
        return Phase(
            name,
            start_s,
            window_s,
            answers,
            faults.done if faults else (),
            faults.skipped if faults else 0,
            attendance.none_s,
            attendance.times,
            {key: value - before.get(key, 0.0) for key, value in after.items()},
            time.process_time() - start_cpu_s,
        )

    def _tell(self, name: str, answers: Sequence[Answer]) -> None:
        bad = [a.error for a in answers if a.error is not None]
        shown = f", e.g. {bad[0]}" if bad else ""
        say(f"{self._world.title}, {name}: {len(answers)} answers, {len(bad)} errors{shown}")

    async def _until_whole(self, http: aiohttp.ClientSession) -> None:
        deadline_s = time.monotonic() + _WHOLE_AGAIN_S
        while True:
            await self._fleet.ask(http)
            if len(self._fleet.up) >= self._world.replicas:
                return
            if time.monotonic() > deadline_s:
                raise StartError(f"only {len(self._fleet.up)} replicas are up", "")
            await asyncio.sleep(0.5)


def _token(launches: Sequence[Launch]) -> str:
    return launches[0].env["WEIR_INTERNAL_TOKEN"]


def _allow_many_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("migration", __doc__)
    parser.add_argument("--only", metavar="KEYS", help="real or stub (default: both)")
    parser.add_argument("--seconds", type=float, help="of each kind of fault; 120, quick 30")
    parser.add_argument("--every-s", type=float, default=10.0, help="default %(default)s")
    parser.add_argument("--stop-s", type=float, default=8.0, help="default %(default)s")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    parser.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="copy the platform's log there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
