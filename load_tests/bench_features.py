"""What online features cost a request, what happens when they fail, and whether they help.

Latency: ten features of one entity from a real Redis, at 500 requests per second and as fast as it
goes, for weir's read path, Feast's async client and Feast's Python feature server; each alone in
fresh processes, rounds interleaved, the same data written by Feast.
Faults: the store is killed, slow, hanging, talks garbage; data are stale, missing, of wrong types.
Placement: the KV blocks that prompts can share, by where the features go.
Answers: the real teacher through the whole platform over HTTP, with and without enrichment.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from load_tests.features.answers import WAYS, AskError, answer_rows, examples
from load_tests.features.data import FeastWriter, customers, redis_server
from load_tests.features.faults import (
    ALLOWED_OVER_MS,
    BUDGET_MS,
    cases,
    fault_rows,
    write_bad_data,
)
from load_tests.features.latency import Setting, latency_rows
from load_tests.features.placement import placement_rows
from load_tests.features.proxy import faulty_proxy
from load_tests.report import Mark, Report, bench_parser, emit, median
from load_tests.servers import StartError, Unavailable, engine_workload, unwind_on_sigterm

PARTS = ("latency", "faults", "placement", "answers")
NOTES = (
    "latency rows: from the request's arrival in the process to typed values in hand (weir's first "
    "row: to the changed prompt); a request that is late does not hold up the next",
    "Feast's server runs with worker recycling off, in its favour",
    "the throughput ratio is taken within a round; everything else is a median over rounds",
    "faults: every request was answered and none raised; figures are of the time after the fault",
    "the computed cache forgets nothing; the answers' cache is a real engine's of 64 MiB, each "
    "tenant with blocks of its own",
)
Rows = list[dict[str, Any]]


def store_parts(options: argparse.Namespace, parts: Sequence[str]) -> tuple[Rows, Rows, list[Any]]:
    """Latency rows, fault rows, and the latency's rounds, before one Redis."""
    count = 200 if options.quick else 2_000
    latency: Rows = []
    faults: Rows = []
    rounds: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="weir-features-") as name:
        folder = Path(name)
        with redis_server(folder / "redis") as server:
            people = customers(count)
            writer = FeastWriter(server.url, folder / "feast")
            writer.write_customers(people, dt.datetime.now(dt.UTC))
            if "latency" in parts:
                seconds = 1.0 if options.quick else 2.0
                setting = Setting(server.url, folder / "feast", count, seconds, options.seed)
                latency, rounds = latency_rows(setting, 1 if options.quick else options.rounds)
            if "faults" in parts:
                write_bad_data(writer, server.url, people)
                with faulty_proxy(server.port, options.seed) as proxy:
                    faults = fault_rows(proxy, people, 1.5 if options.quick else 4.0)
    return latency, faults, rounds


def latency_marks(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Mark]:
    """The issue's latency targets and the ratio to Feast's own client."""
    ours = [each["weir-enricher"] for each in rounds if "weir-enricher" in each]
    pairs = [(each["weir"], each["feast-async"]) for each in rounds if "feast-async" in each]
    ratio = median(mine["most_per_s"] / theirs["most_per_s"] for mine, theirs in pairs)
    absent = None if ours and pairs else "not measured in this run"
    return [
        Mark(
            "added latency at 500 req/s, p50",
            median(each["p50_ms"] for each in ours),
            "ms",
            0.3,
            "lower",
            absent,
        ),
        Mark(
            "added latency at 500 req/s, p99",
            median(each["p99_ms"] for each in ours),
            "ms",
            2.0,
            "lower",
            absent,
        ),
        Mark("throughput over Feast's async client", ratio, "ratio", 3.0, "higher", absent),
    ]


def fault_marks(rows: Rows) -> list[Mark]:
    """For each fault: nobody waits more than the budget and 5 ms."""
    limit_ms = BUDGET_MS + ALLOWED_OVER_MS
    longest = {row["system"]: row["max_ms"] for row in rows}
    absent = "not measured in this run"
    titles = [case.title for case in cases(()) if case.title != "nothing wrong"]
    return [
        Mark(
            f"longest wait, {title}",
            longest.get(title),
            "ms",
            limit_ms,
            "lower",
            None if title in longest else absent,
        )
        for title in titles
    ]


def answer_marks(placements: Rows, answers: Rows, why: str) -> list[Mark]:
    """Enrichment helps, gives the teacher what the client's own facts would, and where it goes
    matters."""
    right = {row["system"]: row.get("right_share") for row in answers}
    after, _, without, inline = (right.get(way.title) for way in WAYS)
    share = {row["system"]: row["kv_cache_hit_share"] for row in placements}
    gain = same = None
    if after is not None and without is not None and inline:
        gain, same = after - without, after / inline
    reason = None if gain is not None else why
    hits = share["after_system"] - share["before_system"] if share else None
    return [
        Mark("right answers gained by enrichment", gain, "share", 0.0, "higher", reason),
        Mark("right answers, enriched over facts inline", same, "ratio", 0.98, "higher", reason),
        Mark(
            "KV hit share gained by placement after the system prompt",
            hits,
            "share",
            0.0,
            "higher",
            None if share else "not measured in this run",
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    unwind_on_sigterm()
    parts = options.only.split(",") if options.only else list(PARTS)
    latency: Rows = []
    faults: Rows = []
    rounds: list[Any] = []
    if "latency" in parts or "faults" in parts:
        latency, faults, rounds = store_parts(options, parts)
    placements: Rows = []
    answers: Rows = []
    why = "not measured in this run"
    try:
        workload = engine_workload(options.model)
        if "placement" in parts:
            placements = placement_rows(workload.model, examples(options.seed, 500))
        if "answers" in parts:
            answers = answer_rows(workload, options.seed, 40 if options.quick else 240)
            why = "no answers"
    except (StartError, Unavailable, AskError, aiohttp.ClientError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        print(why, file=sys.stderr)
    marks = latency_marks(rounds) + fault_marks(faults)
    marks += answer_marks(placements, answers, why)
    report = Report("features", options.seed, latency + faults + placements + answers, marks, NOTES)
    return emit(report, options, argv)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("features", __doc__)
    parser.add_argument("--only", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s, quick 1")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
