"""What it costs to count money: reserving and settling, at one gateway and at four."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from load_tests.money.accounts import account_rows
from load_tests.report import Report, bench_parser, emit


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("money", __doc__)
    parser.add_argument("--seconds", type=float, help="each measurement; default 5, quick 1")
    parser.add_argument("--rounds", type=int, help="medians are shown; default 3, quick 1")
    options = parser.parse_args(argv)
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    rows, marks = account_rows(seconds, options.rounds or (1 if options.quick else 3))
    return emit(Report("money", options.seed, rows, marks), options, argv)


if __name__ == "__main__":
    sys.exit(main())
