"""Money: is it exact, and what does it cost to count it?

Parts, each alone with ``--only``:

  accounts  reserving and settling alone, at one gateway and at four, before a real Redis
  exact     10,000 requests through four gateways, streams that break off, spills, cascades, moves
            and retries among them, while gateways and Redis are killed and replicas freeze: the
            ledger beside the engines' own counters, what is paid beside what is borne and idle,
            and by how much bounds were exceeded
  keys      a new tenant and its key over the admin API: seconds until the first answer; a revoked
            key: seconds until it is refused everywhere; streams that are in flight meanwhile
  beside    what counting adds to a request, and how many a second pass, at one gateway process and
            at four, beside LiteLLM's proxy (``make bench-peers``)

The engines are stand-ins that keep an engine's rhythm (``--engine vllm`` for real ones in
``exact``); everything else is what ships.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from load_tests.money.accounts import account_marks, account_rows
from load_tests.money.beside import PROCESSES, beside_rows
from load_tests.money.beside import unmeasured as beside_unmeasured
from load_tests.money.exact import exact_rows
from load_tests.money.exact import unmeasured as exact_unmeasured
from load_tests.money.keys import key_marks, key_rows
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit
from load_tests.servers import (
    EngineWorkload,
    StartError,
    Unavailable,
    engine_workload,
    unwind_on_sigterm,
)

Part = Callable[[EngineWorkload, argparse.Namespace], tuple[list[Row], list[Mark]]]


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
    for name in options.only or PARTS:
        print(f"money: {name}", file=sys.stderr, flush=True)
        measure, without = PARTS[name]
        try:
            made, found = measure(workload, options)
        except (StartError, Unavailable) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            print(getattr(error, "log_tail", ""), file=sys.stderr, flush=True)
            made, found = [absent_row(name, str(error))], without(str(error))
        rows += made
        marks += found
    return emit(Report("money", options.seed, rows, marks), options, argv)


PARTS: dict[str, tuple[Part, Callable[[str], list[Mark]]]] = {
    "accounts": (account_rows, account_marks),
    "exact": (exact_rows, exact_unmeasured),
    "keys": (key_rows, key_marks),
    "beside": (beside_rows, beside_unmeasured),
}


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("money", __doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="default: all")
    parser.add_argument("--seconds", type=float, help="each measurement; default 5, quick 1")
    parser.add_argument("--rounds", type=int, help="medians are shown; default 3, quick 1")
    parser.add_argument("--requests", type=int, help="of exact; default 10000, quick 600")
    parser.add_argument("--streams", type=int, default=64, help="at a time; default %(default)s")
    parser.add_argument("--engine", choices=("stub", "vllm"), default="stub")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    parser.add_argument(
        "--processes", type=int, nargs="+", choices=PROCESSES, help="of beside; default: 1 and 4"
    )
    parser.add_argument("--peers-python", type=Path, help="of the peers' environment")
    parser.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="copy the platform's log there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
