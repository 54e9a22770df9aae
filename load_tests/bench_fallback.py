"""What spilling to the student is worth: overload, failure, and cascades.

Live, on the platform with real engines: the teacher has one replica that runs one sequence at a
time, so that its capacity is known and small; the student has its own replica. Overload offers
three times that capacity, with and without spilling in turn on the same arrivals, and judges every
answer with the support desk's checker. Failure kills the teacher's replica during traffic. The
cascade asks the same questions of teacher, student and cascade.

Simulated, on RouteLLM's published answers: what routing by the question's text saves.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deployments.sources import model_source
from load_tests.fallback import failure, overload, pair, routellm
from load_tests.fallback.platform import running
from load_tests.fallback.traffic import examples
from load_tests.report import Mark, Report, absent_row, bench_parser, emit
from load_tests.servers import StartError, unwind_on_sigterm
from load_tests.traces.schema import TraceError
from weir.errors import ConfigError
from weir.registry import read_manifest

TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
_FIRST_TOKENS, _THRESHOLD = 8, -0.05

Rows = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    unwind_on_sigterm()
    simulated = _or_absent(
        "routing, simulated", lambda: routellm.rows(options.traces, options.seed)
    )
    live: Rows = []
    if not options.simulation_only:
        live = _or_absent("the platform", lambda: _live(options))
    rows = [*live, *simulated]
    notes = [
        "The teacher has one replica with one place here: its places run out, not the cores.",
        "Errors after output has begun are counted apart: such a stream fails as it does without "
        "a fallback.",
        "RouteLLM's published figures are on all of MMLU and GSM8K, these on the part of the "
        "questions that is in the traces.",
    ]
    report = Report("fallback", options.seed, rows, _marks(rows), notes)
    return emit(report, options, argv)


def _or_absent(what: str, measure: Callable[[], Rows]) -> Rows:
    try:
        return measure()
    except (StartError, TraceError, ConfigError) as error:
        print(f"{what}: {error}", file=sys.stderr, flush=True)
        return [absent_row(what, str(error))]


def _live(options: argparse.Namespace) -> Rows:
    folder = Path(model_source(options.student))
    manifest = read_manifest(folder)
    fitted = manifest.confidence if manifest else None
    first_tokens = fitted.first_tokens if fitted else _FIRST_TOKENS
    threshold = fitted.threshold if fitted else _THRESHOLD
    quick, seed = options.quick, options.seed
    source = examples(seed)
    rows: Rows = []
    with running(str(folder), first_tokens, threshold) as live:
        _say(f"up after {live.started.seconds_to_ready:.0f} s")

        async def measure() -> None:
            capacity = await overload.capacity_per_s(live, source, 3 if quick else 6)
            _say(f"capacity {capacity:.1f} requests/s")
            asked = await pair.ask_all(live, source, 40 if quick else 160)
            rows.extend(pair.rows(asked, first_tokens, threshold))
            _say("cascade done")
            seconds = 4 if quick else 12
            found = await overload.run(live, source, capacity, seconds, seed)
            rows.extend(overload.rows(found, capacity))
            _say("overload done")
            killed = await failure.run(live, source, capacity, 35, seed)
            rows.append(failure.row(killed))

        asyncio.run(measure())
    return rows


def _marks(rows: Rows) -> list[Mark]:
    return [
        _mark(rows, "weir with spill, interactive", "slo_attained_ratio", 0.99, "higher",
              "interactive requests within their SLO at 3 x capacity, with spill"),
        _mark(rows, "weir with spill, batch", "by_student_ratio", 0.0, "lower",
              "batch requests that the student answered"),
        _mark(rows, "weir, teacher's replicas killed", "client_visible_error_ratio", 0.0, "lower",
              "requests without output yet that failed when the teacher was killed"),
        _mark(rows, "weir, teacher's replicas killed", "first_student_answer_after_kill_s", 1.0,
              "lower", "first student answer after the kill"),
        _mark(rows, "mmlu: text regression", "cost_saved_at_95_ratio",
              routellm.PUBLISHED_SAVED["mmlu"], "higher", "cost saved at 95 % quality, MMLU"),
        _mark(rows, "gsm8k: text regression", "cost_saved_at_95_ratio",
              routellm.PUBLISHED_SAVED["gsm8k"], "higher", "cost saved at 95 % quality, GSM8K"),
    ]  # fmt: skip


def _mark(rows: Rows, system: str, figure: str, target: float, better: Any, name: str) -> Mark:
    row = next((r for r in rows if r["system"] == system), {})
    value = row.get(figure)
    unit = "s" if figure.endswith("_s") else "ratio"
    reason = None if value is not None else str(row.get("reason") or "not measured in this run")
    return Mark(name, value, unit, target, better, reason)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("fallback", __doc__)
    parser.add_argument("--student", default="builtin:student", help="default %(default)s")
    parser.add_argument(
        "--traces", type=Path, default=TRACES, help="folder with RouteLLM's answers"
    )
    parser.add_argument(
        "--simulation-only", action="store_true", help="without starting the platform"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
