"""``weir bench planner``: what ``weir plan`` foretells, beside published throughputs.

The efficiencies that ship were fitted on the rows that say so (``--fit`` does it again and prints
them); all others were not looked at for it. ``error_median``: of the rows of one model and device,
foretold over published, less one; negative where the planner foretells less.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from load_tests.planner.fitting import errors, fit, foretold, median_error
from load_tests.planner.published import PUBLISHED
from load_tests.report import Mark, Report, Row, bench_parser, emit
from weir.planner.roofline import Efficiencies


def main(argv: Sequence[str] | None = None) -> int:
    """Print it; exit code 0."""
    parser = bench_parser("planner", __doc__)
    parser.add_argument(
        "--fit", action="store_true", help="fit the efficiencies anew, and use them"
    )
    options = parser.parse_args(argv)
    rows, marks = measure(options)
    return emit(Report("planner", options.seed, rows, marks), options)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[Mark]]:
    """Rows of each model and device, and of each of their figures."""
    used = fit(options.seed) if options.fit else Efficiencies()
    rows: list[Row] = [{"table": "efficiencies", "system": "weir plan", **asdict(used)}]
    for one in PUBLISHED:
        found = errors(one, used)
        rows.append(
            {
                "table": "by model and device",
                "system": f"{one.name}, {one.layout.devices} × {one.accelerator}",
                "layout": one.layout.name,
                "used_to_fit": "yes" if one.fitted else "no",
                "rows": len(found),
                "error_median": median(found),
                "error_abs_median": median(map(abs, found)),
                "error_abs_worst": max(map(abs, found)),
                "source": one.source,
            }
        )
    rows += [
        {
            "table": "figures",
            "system": f"{one.name}, {one.layout.devices} × {one.accelerator}",
            "prompt_tokens": prompt,
            "output_tokens": output,
            "published_tokens_per_s": figure,
            "foretold_tokens_per_s": foretold(one, prompt, output, used),
        }
        for one in PUBLISHED
        for prompt, output, figure in one.rows
    ]
    return rows, list(_marks(used))


def _marks(used: Efficiencies) -> Sequence[Mark]:
    fitted = [one for one in PUBLISHED if one.fitted]
    unseen = [one for one in PUBLISHED if not one.fitted]
    return [
        Mark("published results that the fit has not seen", len(unseen), "results", 5, "higher"),
        Mark("median absolute error, fitted", median_error(fitted, used), "share", 0.1, "lower"),
        Mark("median absolute error, unseen", median_error(unseen, used), "share", 0.2, "lower"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
