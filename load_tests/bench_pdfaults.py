"""``weir bench pdfaults``: either side of a hand-off is lost at every moment of it.

Eleven moments (before the prefill, in it, between prefill and hand-off, before the transfer, in it,
mid-decode; each side) times three ways (SIGKILL, SIGSTOP that goes on later, SIGSTOP for good), and
kept blocks that are freed before anybody fetches them. Twice: in virtual time with the gateway that
ships and stand-ins for engines, and with vLLM's engines that hand over by NIXL. Answers must equal
the undisturbed ones, nobody gets an error, and no engine keeps a KV block (vLLM's own gauge).

``--keep FILE`` keeps what was measured, so that a long run can be done in parts.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from load_tests.pdfaults import virtual
from load_tests.pdfaults.moments import FAULTS, Fault
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit
from load_tests.routing.kept import KeptRuns
from load_tests.servers import Unavailable, engine_workload

TIMES = 50
AT_ONCE = 50
REAL = "vLLM engines, NIXL"
_ROOT = Path(__file__).resolve().parents[1]


def parser() -> argparse.ArgumentParser:
    """The bench's options."""
    options = bench_parser("pdfaults", __doc__)
    options.add_argument("--times", type=int, help=f"injections per fault; default {TIMES}")
    options.add_argument("--at-once", type=int, default=AT_ONCE, help="requests under one strike")
    options.add_argument("--faults", nargs="+", help="only faults whose name has that in it")
    options.add_argument("--virtual", action="store_true", help="without real engines")
    options.add_argument("--model", type=Path, help="a folder; default: the teacher")
    options.add_argument("--keep", type=Path, metavar="FILE", help="what was measured already")
    options.add_argument("--limit-s", type=float, default=86400.0, help="stop engines after that")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = parser().parse_args(argv)
    times = options.times or (3 if options.quick else TIMES)
    faults = [
        fault
        for fault in FAULTS
        if not options.faults or any(part in fault.name for part in options.faults)
    ]
    kept = KeptRuns(options.keep)
    rows: list[Row] = [
        kept.once(f"virtual {fault.name} {times} {options.seed}", functools.partial(
            virtual.row, fault, times, options.seed))
        for fault in faults
    ]  # fmt: skip
    if not options.virtual:
        rows += _real_rows(options, faults, times, kept)
    notes = [
        f"real engines: {options.at_once} requests under one strike, each held at the moment until "
        "all are there; every request so struck is one injection",
        "blocks_left: KV blocks in use by vLLM's own gauge on every engine that lives, when all "
        "answers are there and the bounds (lease 6 s, patience 5 s here) are over",
        "crashed: engines that ended by themselves",
    ]
    return emit(Report("pdfaults", options.seed, rows, marks_of(rows), notes), options, argv)


def marks_of(rows: Sequence[Row]) -> list[Mark]:
    """Over all faults, of either table."""
    marks = []
    for table in dict.fromkeys(str(row["table"]) for row in rows):
        own = [row for row in rows if row["table"] == table]
        missing = sum("reason" in row for row in own)
        least = None if missing else float(min(row["injected"] for row in own))
        reason = f"{missing} faults were not injected" if missing else None
        name = f"{table}: injections of each fault"
        marks.append(Mark(name, least, "injections", TIMES, "higher", reason))
        for figure in ("wrong", "errors", "blocks_left", "crashed"):
            found = [row[figure] for row in own if row.get(figure) is not None]
            if found:
                total = float(sum(found))
                marks.append(Mark(f"{table}: {figure}", total, figure, 0, "lower"))
    return marks


def _real_rows(
    options: argparse.Namespace, faults: Sequence[Fault], times: int, kept: KeptRuns
) -> list[Row]:
    def key(name: str) -> str:
        return f"real {name} {times} {options.at_once} {options.seed}"

    missing = [fault.name for fault in faults if not kept.knows(key(fault.name))]
    reason = "not measured within --limit-s"
    try:
        if missing:
            for row in _measure(options, missing, times):
                kept.once(key(str(row["system"])), functools.partial(dict, row))
    except (Unavailable, MeasureError) as error:
        reason = str(error)
    return [
        kept.once(key(fault.name), dict)
        if kept.knows(key(fault.name))
        else {**absent_row(fault.name, reason), "table": REAL}
        for fault in faults
    ]


class MeasureError(Exception):
    """The process with the engines broke; the message has its last words."""


def _measure(
    options: argparse.Namespace, faults: Sequence[str], times: int
) -> Iterator[dict[str, Any]]:
    """A row for each fault, as they come.

    Raises:
        Unavailable: there is no model.
        MeasureError: the process ended early.
    """
    job = {
        "model": str(engine_workload(options.model).model),
        "faults": list(faults),
        "times": times,
        "at_once": options.at_once,
        "seed": options.seed,
    }
    with (
        tempfile.TemporaryFile("w+") as words,
        subprocess.Popen(
            [sys.executable, "-m", "load_tests.pdfaults.real"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            cwd=_ROOT,
            env=_environment(),
        ) as process,
    ):
        # Its engines die with it.
        deadline = threading.Timer(options.limit_s, process.kill)
        deadline.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            for line in process.stdout:
                if line.startswith("RESULT "):
                    row = json.loads(line.removeprefix("RESULT "))
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    yield row
        finally:
            late = not deadline.is_alive()
            deadline.cancel()
            process.kill()
        if process.wait() and not late:
            words.seek(0)
            raise MeasureError(words.read()[-1500:])


def _environment() -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return env | {
        "PYTHONPATH": os.pathsep.join([str(_ROOT / "platform"), str(_ROOT)]),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_COMPILE_DISABLE": "1",
        "UCX_NET_DEVICES": "lo",
    }


if __name__ == "__main__":
    sys.exit(main())
