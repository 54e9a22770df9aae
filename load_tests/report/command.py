"""The options every bench has, and printing or writing its report."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from load_tests.report.shape import Report
from load_tests.report.tables import tables

DEFAULT_SEED = 7


def bench_parser(bench: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json --out FILE --quick --seed N``."""
    parser = argparse.ArgumentParser(
        prog=f"weir bench {bench}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON to FILE")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="default %(default)s")
    return parser


AUTOGROUP_WARNING = (
    "kernel.sched_autogroup_enabled is 1 here: with every core busy, a process may wait for over a "
    "second to run, and latencies measured say nothing (docs/benchmarks.md)"
)


def emit(report: Report, options: argparse.Namespace, argv: Sequence[str] | None = None) -> int:
    """Print the report (tables, or JSON with ``--json``), write ``--out``; returns exit code 0.

    A missed mark is a result, not a failure, so it does not change the exit code.
    """
    if report.command is None:
        arguments = sys.argv[1:] if argv is None else argv
        words = ["weir", "bench", report.bench, *arguments]
        report = replace(report, command=shlex.join(words))
    if report.machine.autogroup:
        print(AUTOGROUP_WARNING, file=sys.stderr)
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", "utf-8")
    if options.json:
        print(text)
        return 0
    # A pipe has no width of its own; tables that are folded to 80 columns cannot be read.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for table in tables(report):
        console.print(table)
    for note in report.notes:
        console.print(f"- {note}", markup=False)
    return 0
