"""Batch jobs: interactive latency beside them, and every line once though workers are killed.

Three parts, each on a platform of its own, as ``weir up`` starts it, with two vLLM replicas:

  tail      a few interactive streams in a closed loop: alone, beside processes of a lower
            priority that only compute, one for each core (what sharing the cores costs whoever
            shares them), and beside a batch of 10,000 lines that never runs out of work; the three
            take turns, and each figure is the median of the rounds
  replicas  a batch of 2,000 lines; a replica's process is killed (SIGKILL) three times, at a
            quarter, a half and three quarters of the lines
  gateways  the same with a gateway's process; another one goes on when the dead one's leases have
            run out

A result counts for its line's id, in the output file or the error file. Every line must have one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from load_tests.batch.jobs import ENDED, Jobs, batch_lines
from load_tests.batch.kills import at_progress, kill_one
from load_tests.loadgen import Load, Target, chat_bodies, latency_figures, prompt_texts, run_load
from load_tests.report import (
    Mark,
    Report,
    Row,
    absent_row,
    bench_parser,
    emit,
    median,
)
from load_tests.servers import (
    EngineWorkload,
    Started,
    StartError,
    Unavailable,
    engine_workload,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_platform

PARTS = ("tail", "replicas", "gateways")
ALONE, COMPUTING, BATCH = "alone", "beside processes that compute", "beside a batch"
KILLS = 3
PROMPT_TOKENS, OUTPUT_TOKENS = 48, 24
REPLICAS = 2
_ANSWER_PATIENCE_S = 240.0
_STALL_S = 300.0
NOTES = (
    "lines that a dead gateway had computed and not published yet are computed again: those of "
    "half a second at most; what is published is published once",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        workload = engine_workload(options.model)
    except Unavailable as error:
        parser.error(str(error))
    unwind_on_sigterm()
    rows: list[Row] = []
    marks: list[Mark] = []
    for part in options.only or PARTS:
        try:
            with _platform(workload, options) as server:
                made, found = _MEASURES[part](workload, options, server)
            rows += made
            marks += found
        except (StartError, Unavailable) as error:
            say(f"{part}: {error}")
            rows.append(absent_row(part, str(error)))
            marks += _unmeasured(part, str(error))
    return emit(Report("batch", options.seed, rows, marks, NOTES), options, argv)


@contextmanager
def _platform(workload: EngineWorkload, options: argparse.Namespace) -> Iterator[Started]:
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        launches, target = weir_platform(workload, REPLICAS, Path(folder))
        with start(launches, target, options.keep_logs) as server:
            body = chat_bodies(workload.served_name, ["hello"], 2)[0]
            await_answer(target, body, _ANSWER_PATIENCE_S)
            yield server


def _tail(
    workload: EngineWorkload, options: argparse.Namespace, server: Started
) -> tuple[list[Row], list[Mark]]:
    seconds = options.seconds or (15.0 if options.quick else 60.0)
    rounds = 1 if options.quick else 3
    lines = _lines(workload, options, options.lines or (1_000 if options.quick else 10_000))
    told = (*server.target.headers, ("x-weir-priority", "interactive"))
    urgent = replace(server.target, headers=told)
    texts = prompt_texts(options.seed + 1, 500, PROMPT_TOKENS, workload.token_counter())
    bodies = chat_bodies(workload.served_name, texts, OUTPUT_TOKENS)
    load = Load(options.streams, OUTPUT_TOKENS, 5.0, seconds)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (ALONE, COMPUTING, BATCH)}
    with Jobs(server.target) as jobs:
        _window(urgent, load, bodies)  # what is done once only: caches of templates, connections
        for number in range(rounds):
            found[ALONE].append(_window(urgent, load, bodies))
            with _computing():
                found[COMPUTING].append(_window(urgent, load, bodies))
            batch_id = jobs.submit(lines)
            jobs.until(batch_id, lambda b: b["request_counts"]["completed"] > 0, _STALL_S)
            before = jobs.state(batch_id)["request_counts"]["completed"]
            begun_s = time.monotonic()
            beside = _window(urgent, load, bodies)
            batch = jobs.state(batch_id)
            done = batch["request_counts"]["completed"] - before
            beside["batch_lines_per_s"] = done / (time.monotonic() - begun_s)
            beside["batch_under_way"] = batch["status"] == "in_progress"
            found[BATCH].append(beside)
            if batch["status"] not in ENDED:
                jobs.cancel(batch_id)
            say(f"tail: round {number + 1} of {rounds}")
    return _tail_rows(found)


def _tail_rows(found: dict[str, list[dict[str, Any]]]) -> tuple[list[Row], list[Mark]]:
    rows: list[Row] = []
    for name, windows in found.items():
        figures = {
            key: median([w[key] for w in windows if w[key] is not None])
            for key in windows[0]
            if key != "batch_under_way"
        }
        rows.append({"table": "interactive streams", "system": name, **figures})
    ratios = {
        other: [
            beside["ttft_ms_p99"] / alone["ttft_ms_p99"]
            for alone, beside in zip(found[ALONE], found[other], strict=True)
            if alone["ttft_ms_p99"] and beside["ttft_ms_p99"]
        ]
        for other in (COMPUTING, BATCH)
    }
    idle = not all(w["batch_under_way"] for w in found[BATCH])
    reasons = {BATCH: "the batch had ended before its window did" if idle else None}
    return rows, [
        Mark(_over_alone(other), median(values), "ratio", 1.2, "lower", reasons.get(other))
        if values
        else Mark(_over_alone(other), None, "ratio", 1.2, "lower", "no stream was complete")
        for other, values in ratios.items()
    ]


def _over_alone(other: str) -> str:
    return f"interactive TTFT p99 {other}, over alone"


@contextmanager
def _computing() -> Iterator[None]:
    """A process for each core that computes, at a lower priority."""
    command = ["nice", "-n", "10", sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
        yield


def _window(target: Target, load: Load, bodies: Sequence[bytes]) -> dict[str, Any]:
    outcome = run_load(target, load, bodies)
    figures = latency_figures(outcome.samples)
    errors = sum(sample.error is not None for sample in outcome.samples)
    return {**figures, "requests": len(outcome.samples), "errors": errors}


def _killing(part: str, deployment: str) -> Callable[..., tuple[list[Row], list[Mark]]]:
    def measure(
        workload: EngineWorkload, options: argparse.Namespace, server: Started
    ) -> tuple[list[Row], list[Mark]]:
        total = options.kill_lines or (200 if options.quick else 2_000)
        begun_s = time.monotonic()
        with Jobs(server.target) as jobs:
            batch_id = jobs.submit(_lines(workload, options, total))
            name = deployment.format(model=workload.served_name)

            def done() -> int:
                counts = jobs.state(batch_id)["request_counts"]
                return int(counts["completed"] + counts["failed"])

            def kill() -> None:
                say(f"{part}: killing one after {done()} lines")
                kill_one(server, name)

            kills = at_progress(done, total, KILLS, kill, _STALL_S)
            batch = jobs.until(batch_id, lambda b: b["status"] in ENDED, _STALL_S + total)
            ids = jobs.result_ids(batch)
        took_s = time.monotonic() - begun_s
        return _once(part, batch, ids, total, kills, took_s)

    return measure


def _once(
    part: str, batch: dict[str, Any], ids: list[str], total: int, kills: int, took_s: float
) -> tuple[list[Row], list[Mark]]:
    missing, twice = total - len(set(ids)), len(ids) - len(set(ids))
    row = {
        "table": "lines while workers are killed",
        "system": f"{part} killed",
        "lines": total,
        "kills": kills,
        "results": len(ids),
        "failed": batch["request_counts"]["failed"],
        "status": batch["status"],
        "took_s": took_s,
    }
    return [row], [
        Mark(f"{part} killed: lines without a result", missing, "lines", 0, "lower"),
        Mark(f"{part} killed: results beyond the first of a line", twice, "lines", 0, "lower"),
    ]


def _unmeasured(part: str, reason: str) -> list[Mark]:
    if part == "tail":
        return [
            Mark(_over_alone(other), None, "ratio", 1.2, "lower", reason)
            for other in (COMPUTING, BATCH)
        ]
    return [
        Mark(f"{part} killed: {what}", None, "lines", 0, "lower", reason)
        for what in ("lines without a result", "results beyond the first of a line")
    ]


def _lines(workload: EngineWorkload, options: argparse.Namespace, count: int) -> bytes:
    texts = prompt_texts(options.seed, 500, PROMPT_TOKENS - 4, workload.token_counter())
    # Counting tokens takes longer than computing some of them: each text is used several times,
    # behind a number of its own, so that no prompt is cached.
    numbered = [f"{number:08d} {texts[number % len(texts)]}" for number in range(count)]
    return batch_lines(workload.served_name, numbered, OUTPUT_TOKENS)


_MEASURES: dict[str, Callable[..., tuple[list[Row], list[Mark]]]] = {
    "tail": _tail,
    "replicas": _killing("replicas", "model-{model}"),
    "gateways": _killing("gateways", "gateway"),
}


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("batch", __doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="default: all three")
    parser.add_argument("--seconds", type=float, help="of each window; 60, quick 15")
    parser.add_argument("--streams", type=int, default=2, help="interactive; default %(default)s")
    parser.add_argument("--lines", type=int, help="of the batch beside them; 10000, quick 1000")
    parser.add_argument("--kill-lines", type=int, help="while workers are killed; 2000, quick 200")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    parser.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="copy the platform's log there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
