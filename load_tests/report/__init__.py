"""What every bench prints: one JSON object of one shape, or the same as tables.

A bench is ``python -m load_tests.bench_NAME``::

    def main(argv: Sequence[str] | None = None) -> int:
        parser = bench_parser("NAME", __doc__)
        parser.add_argument("--rounds", type=int, default=5)
        options = parser.parse_args(argv)
        rows, marks = measure(options)
        return emit(Report("NAME", options.seed, rows, marks), options)
"""

from load_tests.report.command import bench_parser, emit
from load_tests.report.machine import Machine, this_machine
from load_tests.report.shape import Mark, Report, Row, absent_row
from load_tests.report.stats import interleave, median, percentile, round_figures
from load_tests.report.tables import tables

__all__ = [
    "Machine",
    "Mark",
    "Report",
    "Row",
    "absent_row",
    "bench_parser",
    "emit",
    "interleave",
    "median",
    "percentile",
    "round_figures",
    "tables",
    "this_machine",
]
