"""What tracing costs: off, one request in a hundred, and every request, in paired windows.

Two platforms run side by side, started anew every three rounds: one as it ships, without tracing,
and one that traces and sends to a collector (OTLP over HTTP, in the bench's own process, which only
counts bytes). Short windows of the same load go to them in turn, and a ratio is taken within a
round:

  off     the platform without tracing
  1 %     the other one, at ``sample_ratio: 0.01``
  100 %   the same one, by requests whose clients have sampled them (``traceparent``), with the
          spans of the engine

*engine*: a real engine behind each, which is what a user gets. *gateway*: replicas without an
engine that only emit words, so that the gateway is all there is, and its cost is seen largest.
32 streams of 32 tokens. A platform that nobody asks takes the same few per cent of a core in every
window. What a trace costs by itself, the third table says in microseconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployments.testing.collector import Collector, collecting
from load_tests.dataplane.measure import ANSWER_PATIENCE_S, FULL, Pace, Prompts
from load_tests.loadgen import Load, Target, figures, run_load
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit, interleave, median
from load_tests.servers import (
    Accounts,
    EngineWorkload,
    Started,
    StartError,
    Unavailable,
    cpu_between,
    engine_workload,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.accounting import CpuReading
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_gateway, weir_platform
from load_tests.tracing.single import single_rows
from weir.errors import WeirError

_CHUNK_INTERVAL_MS = 5.0
_SAMPLED = ("traceparent", f"00-{'a1' * 16}-{'b2' * 8}-01")
_TARGETS = {"1 %": 0.99, "100 %": 0.97}
NOTES = (
    "ratios are taken within a round, in which each system had one window; medians over rounds",
    "the collector is in the generator's process, on the same cores",
)


@dataclass(frozen=True, slots=True)
class System:
    """What is compared. ``traces``: the platform that does; ``sampled``: its clients ask for it."""

    name: str
    traces: bool
    sampled: bool = False


#: Two starts of one and the same platform differ by a few per cent, for as long as they run: which
#: is started first changes, and the median is over several starts.
ROUNDS_OF_A_START = 3

SYSTEMS = (System("off", False), System("1 %", True), System("100 %", True, sampled=True))


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one system. ``cpu_ms``: of all processes of its platform, per request."""

    req_per_s: float
    ttft_ms_p50: float
    cpu_ms: float
    errors: int


Rounds = Mapping[str, Sequence[Window]]


def tracing_of(collector: Collector) -> dict[str, Any]:
    """The settings' section."""
    return {"endpoint": collector.url, "protocol": "http/protobuf", "sample_ratio": 0.01}


@contextmanager
def platforms(
    kind: str, workload: EngineWorkload, collector: Collector, logs: Path | None, first: bool
) -> Iterator[Mapping[bool, Started]]:
    """Both, up: False is the one without tracing. ``first`` is the one that is started first."""
    with ExitStack() as stack:
        started = {}
        for traces in (first, not first):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-bench-"))
            sections = {"tracing": tracing_of(collector) if traces else {"recent": 0}}
            if kind == "engine":
                launches, target = weir_platform(workload, 1, Path(folder), sections=sections)
            else:
                launches, target = weir_gateway(
                    workload, _CHUNK_INTERVAL_MS, Path(folder), sections=sections
                )
            started[traces] = stack.enter_context(start(launches, target, logs))
        yield started


def measure(
    kind: str,
    workload: EngineWorkload,
    prompts: Prompts,
    rounds: int,
    pace: Pace,
    logs: Path | None,
) -> tuple[Rounds, Mapping[str, float]]:
    """The windows of each system, and what the collector got."""
    found: dict[str, list[Window]] = {system.name: [] for system in SYSTEMS}
    with collecting(keep=False) as collector:
        for start in range(-(-rounds // ROUNDS_OF_A_START)):
            first, at = start % 2 == 1, start * ROUNDS_OF_A_START
            with platforms(kind, workload, collector, logs, first) as started:
                for server in started.values():
                    await_answer(server.target, prompts.bodies(0, FULL)[0], ANSWER_PATIENCE_S)
                for number, system in interleave(SYSTEMS, min(ROUNDS_OF_A_START, rounds - at)):
                    bodies = prompts.bodies(at + number, FULL)
                    window = _window(started[system.traces], system, bodies, pace)
                    found[system.name].append(window)
                    say(f"{kind}, {at + number + 1}, {system.name}: {window.req_per_s:.1f} req/s")
                time.sleep(2.0)
        got = {"exports": float(collector.asked), "megabytes": collector.taken_bytes / 1e6}
    return found, got


def _window(server: Started, system: System, bodies: Sequence[bytes], pace: Pace) -> Window:
    target: Target = server.target
    if system.sampled:
        target = replace(target, headers=(*target.headers, _SAMPLED))
    accounts = Accounts(server.pids())
    readings: list[CpuReading] = []
    load = Load(FULL.streams, FULL.tokens, pace.warmup_s, pace.window_s, FULL.dialect.shape)
    outcome = run_load(target, load, bodies, lambda: readings.append(accounts.read()))
    told = figures(outcome.samples, outcome.window_s, FULL.streams)
    complete = max(1.0, told["req_per_s"] * outcome.window_s)
    cpu_s = sum(cpu_between(readings[0], readings[1]).values())
    ttft_ms = told["ttft_ms_p50"]
    return Window(
        told["req_per_s"],
        float("nan") if ttft_ms is None else ttft_ms,
        cpu_s * 1000 / complete,
        told["errors"],
    )


def rows_of(kind: str, rounds: Rounds, got: Mapping[str, float]) -> list[Row]:
    """One row a system: medians."""
    rows: list[Row] = []
    for name, windows in rounds.items():
        row: dict[str, Any] = {
            "table": _TITLES[kind],
            "system": name,
            "req_per_s": median(w.req_per_s for w in windows),
            "ratio_to_off": ratio(rounds, name, lambda w: w.req_per_s),
            "ttft_ms_p50": median(w.ttft_ms_p50 for w in windows),
            "cpu_ms_per_request": median(w.cpu_ms for w in windows),
            "cpu_ratio_to_off": ratio(rounds, name, lambda w: w.cpu_ms),
            "windows": len(windows),
            "errors": sum(w.errors for w in windows),
        }
        rows.append({**row, **(got if name == "100 %" else {})})
    return rows


def ratio(rounds: Rounds, name: str, figure: Callable[[Window], float]) -> float | None:
    """Of a system's figure to that of the one without tracing; the median of the rounds' own."""
    pairs = zip(rounds[name], rounds["off"], strict=False)
    return median(figure(one) / figure(off) for one, off in pairs if figure(off))


def marks_of(kind: str, rounds: Rounds | None, reason: str) -> list[Mark]:
    """Throughput against that without tracing."""
    made = []
    for name, target in _TARGETS.items():
        title = f"{_TITLES[kind]}: requests per second at {name} / off"
        value = None if rounds is None else ratio(rounds, name, lambda w: w.req_per_s)
        made.append(Mark(title, value, "x", target, "higher", reason or None))
    return made


_TITLES = {"engine": "engine behind it", "gateway": "gateway alone"}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    unwind_on_sigterm()
    rows: list[Row] = []
    marks: list[Mark] = []
    try:
        workload = engine_workload(None)
    except Unavailable as error:
        parser.error(str(error))
    prompts = Prompts(workload, options.seed)
    pace = Pace(1.0, options.window_s or (2.0 if options.quick else 5.0))
    rounds = options.rounds or (3 if options.quick else 12)
    for kind in [options.only] if options.only else list(_TITLES):
        try:
            found, got = measure(kind, workload, prompts, rounds, pace, options.keep_logs)
        except (StartError, Unavailable, WeirError) as error:
            say(getattr(error, "log_tail", ""))
            rows.append(absent_row(_TITLES[kind], str(error)))
            marks += marks_of(kind, None, str(error)[:200])
            continue
        rows += rows_of(kind, found, got)
        marks += marks_of(kind, found, "")
    rows += single_rows(200 if options.quick else 2000)
    return emit(Report("tracing", options.seed, rows, marks, NOTES), options, argv)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("tracing", __doc__)
    parser.add_argument("--only", choices=list(_TITLES), help="default: both")
    parser.add_argument("--rounds", type=int, help="windows of each system; default 12, quick 3")
    parser.add_argument("--window-s", type=float, help="default 5, quick 2")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy the platforms' logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
