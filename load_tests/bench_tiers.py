"""A working set three times the engine's KV cache, with and without tiers in memory and on disk.

The platform serves the teacher from one replica with a small KV cache. The same long prompts come
round again and again in changing order: once to fill whatever there is, then some rounds that
count. With a disk, the replica is then killed with SIGKILL; Ray Serve starts another, and one more
round is asked. Each system on a fresh platform, in turn, medians over the repetitions. Hit rate is
what the engine says it did not compute of the prompts' tokens.

Most of the time is starts of the platform, one for each system and repetition (half a minute on a
quiet machine), and of the replica that is killed. ``--keep FILE`` keeps each of them when it is
measured, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from load_tests.loadgen import Target, chat_bodies
from load_tests.loadgen.prompts import prompt_texts
from load_tests.migration.replicas import Fleet
from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.routing.kept import KeptRuns
from load_tests.servers import EngineWorkload, Started, engine_workload, start, unwind_on_sigterm
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_platform
from load_tests.servers.workload import PROFILE
from load_tests.tiers.rounds import Answer, ask_all, figures, shuffled
from weir.settings import load_settings

NONE, MEMORY, DISK = "no tiers", "memory", "memory and disk"
SYSTEMS = (NONE, MEMORY, DISK)
KILLED = ", after a kill"
#: Of the teacher with the laptop profile's settings: 5 layers, 2 heads of 64, float32, 32 tokens.
BLOCK_BYTES, BLOCK_TOKENS = 163_840, 32
_PATIENCE_S = 240.0
_WRITTEN_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run. ``cache_blocks``: of the engine's KV cache."""

    cache_blocks: int
    prompt_tokens: int
    rounds: int
    repetitions: int
    streams: int
    seed: int

    @property
    def prompts(self) -> int:
        """So many make three times the cache."""
        return round(3 * self.cache_blocks / (self.prompt_tokens / BLOCK_TOKENS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    unwind_on_sigterm()
    plan = _plan(options)
    workload = engine_workload(None)
    rows: list[dict[str, Any]] = []
    right: dict[int, str] = {}
    kept = KeptRuns(options.keep)
    for repetition in range(plan.repetitions):
        for system in options.systems or SYSTEMS:

            def measured(system: str = system) -> dict[str, Any]:
                return {"rows": _measure(workload, system, plan, right, options.keep_logs)}

            told = kept.once(f"{system} {repetition} {plan}", measured)
            rows += [{"repetition": repetition, **row} for row in told["rows"]]
    return emit(Report("tiers", plan.seed, rows, marks_of(rows), _notes(plan)), options, argv)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("tiers", __doc__)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, help="default: all")
    parser.add_argument("--rounds", type=int, help="that count; default 6, quick 1")
    parser.add_argument("--repetitions", type=int, help="default 2, quick 1")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what was measured already")
    parser.add_argument("--streams", type=int, default=1, help="at a time; default %(default)s")
    parser.add_argument("--keep-logs", type=Path, help="a folder for the platform's logs")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    return Plan(
        cache_blocks=100 if quick else 200,
        prompt_tokens=800 if quick else 1900,
        rounds=options.rounds or (1 if quick else 6),
        repetitions=options.repetitions or (1 if quick else 2),
        streams=options.streams,
        seed=options.seed,
    )


def _measure(
    workload: EngineWorkload, system: str, plan: Plan, right: dict[int, str], keep_logs: Path | None
) -> list[dict[str, Any]]:
    """One system, started and ended: its row, and with a disk that of its next life."""
    with tempfile.TemporaryDirectory(prefix="weir-tiers-") as folder:
        engine = engine_settings(system, plan, Path(folder) / "kv")
        launches, target = weir_platform(workload, 1, Path(folder), engine=engine)
        token = launches[0].env["WEIR_INTERNAL_TOKEN"]
        with start(launches, target, keep_logs) as started:
            run = _Run(workload, target, started, token, plan)
            run.wait()
            filled = run.ask([*range(plan.prompts)])
            for answer in filled:
                right.setdefault(answer.number, answer.text)
            counted = run.ask(shuffled(plan.prompts, plan.rounds, plan.seed))
            rows = [{"system": system, **figures(counted, right)}]
            if system != MEMORY:
                time.sleep(_WRITTEN_S)
                down_s = asyncio.run(run.kill_replica())
                again = run.ask(shuffled(plan.prompts, 1, plan.seed + 1))
                killed = {"system": system + KILLED, **figures(again, right)}
                rows.append({**killed, "until_it_answers_s": down_s})
            return rows


def engine_settings(system: str, plan: Plan, folder: Path) -> dict[str, Any]:
    """The laptop profile's engine with the plan's cache, and the system's tiers: memory for the
    whole working set; or as much memory as the cache, and the disk for the rest."""
    engine = load_settings(PROFILE).models[0].engine.model_dump(mode="json")
    cache_bytes = plan.cache_blocks * BLOCK_BYTES
    engine["args"]["kv_cache_memory_bytes"] = cache_bytes
    if system == MEMORY:
        engine["kv_tiers"] = {"memory_bytes": 4 * cache_bytes}
    elif system == DISK:
        disk = {"disk_folder": str(folder), "disk_bytes": 5 * cache_bytes}
        engine["kv_tiers"] = {"memory_bytes": cache_bytes, **disk}
    return engine


class _Run:
    """One platform, asked."""

    def __init__(
        self, workload: EngineWorkload, target: Target, started: Started, token: str, plan: Plan
    ) -> None:
        self._target = target
        self._streams = plan.streams
        self._fleet = Fleet(target, workload.served_name, token, started)
        texts = prompt_texts(
            plan.seed, plan.prompts, plan.prompt_tokens - 40, workload.token_counter()
        )
        self._bodies = chat_bodies(workload.served_name, texts, 8)
        self._hello = chat_bodies(workload.served_name, ["hello"], 2)[0]

    def wait(self) -> None:
        """Until it answers."""
        await_answer(self._target, self._hello, _PATIENCE_S)

    def ask(self, order: Sequence[int]) -> list[Answer]:
        """The prompts in that order."""
        return asyncio.run(ask_all(self._target, self._bodies, order, self._streams))

    async def kill_replica(self) -> float:
        """End the replica and its engine with SIGKILL; seconds until another answers."""
        async with aiohttp.ClientSession() as http:
            await self._fleet.ask(http)
        (family,) = self._fleet.families.values()
        killed_s = time.monotonic()
        for process in reversed(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(self.wait)
        return time.monotonic() - killed_s


def marks_of(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    """With tiers beside without, medians over the repetitions."""

    def median(system: str, figure: str) -> float | None:
        values = [row[figure] for row in rows if row["system"] == system]
        return float(statistics.median(values)) if values else None

    marks = []
    for system in (MEMORY, DISK):
        rate = median(system, "hit_rate_ratio")
        marks.append(Mark(f"hit rate, {system}", rate, "ratio", 0.9, "higher", _why(rate)))
        own, without = median(system, "ttft_p50_ms"), median(NONE, "ttft_p50_ms")
        ratio = own / without if own and without else None
        name = f"TTFT p50, {system} over no tiers"
        marks.append(Mark(name, ratio, "x", 1.0, "lower", _why(ratio)))
    rate = median(DISK + KILLED, "hit_rate_ratio")
    name = "hit rate after the replica was killed, disk"
    marks.append(Mark(name, rate, "ratio", 0.9, "higher", _why(rate)))
    own, without = median(DISK + KILLED, "ttft_p50_ms"), median(NONE + KILLED, "ttft_p50_ms")
    ratio = own / without if own and without else None
    name = "TTFT p50 after a kill, disk over no tiers"
    marks.append(Mark(name, ratio, "x", 1.0, "lower", _why(ratio)))
    same = min((row["answers_identical_ratio"] for row in rows), default=0.0)
    marks.append(Mark("answers identical", same, "ratio", 1.0, "higher"))
    failed = float(sum(row["errors"] for row in rows))
    marks.append(Mark("errors", failed, "answers", 0.0, "lower"))
    return marks


def _why(value: float | None) -> str | None:
    return "not measured" if value is None else None


def _notes(plan: Plan) -> list[str]:
    working = plan.prompts * (plan.prompt_tokens // BLOCK_TOKENS)
    return [
        f"engine's cache: {plan.cache_blocks} blocks of {BLOCK_TOKENS} tokens, "
        f"{plan.cache_blocks * BLOCK_BYTES} bytes; working set: {plan.prompts} prompts of about "
        f"{plan.prompt_tokens} tokens, {working} blocks",
        "memory: 4 times the cache; memory and disk: once the cache, and 5 times on disk",
        "answers are compared with those of the first system's first round",
    ]


if __name__ == "__main__":
    sys.exit(main())
