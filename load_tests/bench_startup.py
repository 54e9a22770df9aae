"""How long ``weir up`` takes to a client's first token, and what the whole platform weighs.

Starts the default platform (two replicas of the teacher and one of its student, on free ports, in a
state folder of its own) several times, from the installed environment. Seconds count from executing
``weir up`` to the first text that a client receives after it has returned. Stages are the
supervisor's own account; they overlap. CPU seconds are those of all processes until the first
token: where they come to the machine's cores times the seconds of the start, only less work helps.
Memory is PSS (a shared page counts once) of the supervisor and all below it, by what the processes
do: after the first answer, and after 32 concurrent streams.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.report import Mark, Report, absent_row, bench_parser, emit, median
from load_tests.servers import StartError, unwind_on_sigterm
from load_tests.servers.accounting import Memory
from load_tests.servers.workload import PROFILE
from load_tests.startup.once import Start, free_ports, start_once
from weir.settings import load_settings

SYSTEM = "weir up, default platform"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    unwind_on_sigterm()
    starts: list[Start] = []
    failure = ""
    for number in range(options.starts or (1 if options.quick else 3)):
        try:
            starts.append(start_once(_config(options.model), 2.0 if options.quick else 5.0))
        except StartError as error:
            failure = str(error)
            print(f"start {number + 1}: {error}\n{error.log_tail}", file=sys.stderr, flush=True)
            break
        print(f"start {number + 1}: {starts[-1].first_token_s:.1f} s", file=sys.stderr, flush=True)
    report = Report("startup", options.seed, rows(starts, failure), marks(starts, failure))
    return emit(report, options, argv)


def rows(starts: Sequence[Start], failure: str) -> list[dict[str, Any]]:
    """The whole, the stages, the memory."""
    if not starts:
        return [absent_row(SYSTEM, failure, ("first_token_s", "pss_mb_loaded"))]
    seconds = [start.first_token_s for start in starts]
    whole = {
        "system": SYSTEM,
        "first_token_s": median(seconds),
        "first_token_s_min": min(seconds),
        "first_token_s_max": max(seconds),
        "weir_up_returns_s": median(start.up_s for start in starts),
        "pss_mb_idle": median(total(start.memory_idle) for start in starts),
        "pss_mb_loaded": median(total(start.memory_loaded) for start in starts),
        "starts": len(starts),
    }
    return [whole, *_stage_rows(starts), *_cpu_rows(starts), *_memory_rows(starts)]


def marks(starts: Sequence[Start], failure: str) -> list[Mark]:
    """The issue's targets."""
    first = median(start.first_token_s for start in starts)
    pss = median(total(start.memory_loaded) / 1000 for start in starts)
    reason = None if starts else failure
    return [
        Mark("first token, first mark", first, "s", 45.0, "lower", reason),
        Mark("first token, aimed at", first, "s", 25.0, "lower", reason),
        Mark("PSS of the whole platform, loaded", pss, "GB", 5.0, "lower", reason),
    ]


def total(memory: Mapping[str, Memory]) -> float:
    """PSS of all, in MB."""
    return sum(one.pss_mb for one in memory.values())


def _stage_rows(starts: Sequence[Start]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(stage.name for start in starts for stage in start.stages))
    found = []
    for name in names:
        stages = [stage for start in starts for stage in start.stages if stage.name == name]
        found.append(
            {
                "table": "where the seconds go (since the supervisor began)",
                "system": "weir",
                "stage": name,
                "start_s": median(stage.start_s for stage in stages),
                "done_s": median(stage.done_s for stage in stages),
                "seconds": median(stage.done_s - stage.start_s for stage in stages),
            }
        )
    return found


def _cpu_rows(starts: Sequence[Start]) -> list[dict[str, Any]]:
    roles = list(dict.fromkeys(role for start in starts for role in start.cpu_s))
    found = [
        {
            "table": "CPU seconds until the first token",
            "system": "weir",
            "role": role,
            "cpu_s": median(start.cpu_s.get(role, 0.0) for start in starts),
        }
        for role in roles
    ]
    return sorted(found, key=lambda row: -row["cpu_s"])


def _memory_rows(starts: Sequence[Start]) -> list[dict[str, Any]]:
    roles = list(dict.fromkeys(role for start in starts for role in start.memory_loaded))
    none = Memory(0, 0.0, 0.0)
    found = []
    for role in roles:
        loaded = [start.memory_loaded.get(role, none) for start in starts]
        idle = [start.memory_idle.get(role, none) for start in starts]
        found.append(
            {
                "table": "memory by role",
                "system": "weir",
                "role": role,
                "processes": median(one.processes for one in loaded),
                "pss_mb_idle": median(one.pss_mb for one in idle),
                "pss_mb_loaded": median(one.pss_mb for one in loaded),
                "rss_mb_loaded": median(one.rss_mb for one in loaded),
            }
        )
    return sorted(found, key=lambda row: -row["pss_mb_loaded"])


def _config(model: Path | None) -> dict[str, Any]:
    config = free_ports()
    if model is not None:
        one = load_settings(PROFILE).models[0].model_dump(mode="json")
        config["models"] = [{**one, "source": str(model.resolve()), "fallback": None}]
    return config


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("startup", __doc__)
    parser.add_argument("--starts", type=int, help="default 3, quick 1")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
