"""``weir bench faults``: seeded fault schedules over the real gateway, in virtual time.

Each schedule is a story drawn from a seed: 2 to 5 replicas, 3 to 24 requests of three tenants and
of every kind, and faults in between (deaths, freezes, drains, lost connections, late and lost
messages, refused connections, engines that hang or refuse, clients that leave, full queues, changes
of the replica set). The gateway is built by the function that builds what ships, with the retry and
move rules that ship. Afterwards: every request has ended exactly once, nothing is reserved
anywhere, the bill equals the tokens delivered, no stream has a gap or a repeat, and no client saw
an error while a replica was well throughout, unless one of the rules' own bounds was reached.

Then the same with bugs planted, one at a time: the schedules must find each of them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.words import word_encoder
from load_tests.faults.planted import PLANTED
from load_tests.faults.playing import play_story
from load_tests.faults.story import draw_story
from load_tests.report import Mark, Report, Row, bench_parser, emit

#: Stories tried until a planted bug must have been found.
MOST_TO_FIND = 200
_CHUNK = 50


@dataclass(frozen=True, slots=True)
class Part:
    """What some seeds came to: what happened, and each failed story with what was wrong."""

    counts: Counter[str]
    failed: tuple[tuple[int, str, str], ...]


def play_seeds(seeds: Sequence[int]) -> Part:
    """Play each seed's story; called in a process of its own."""
    counts: Counter[str] = Counter()
    failed: list[tuple[int, str, str]] = []
    with _quiet(), _encoder() as encoder:
        for seed in seeds:
            result = play_story(draw_story(seed), encoder)
            counts += result.counts
            failed += [(seed, finding.rule, finding.what) for finding in result.findings]
    return Part(counts, tuple(failed))


def play_all(seed: int, schedules: int, processes: int) -> Part:
    """So many stories, from this seed on."""
    first = seed * 1_000_000
    chunks = [
        range(start, min(start + _CHUNK, first + schedules))
        for start in range(first, first + schedules, _CHUNK)
    ]
    counts: Counter[str] = Counter()
    failed: list[tuple[int, str, str]] = []
    # Spawned: a fork would copy whatever threads this process has.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in pool.imap_unordered(play_seeds, chunks):
            counts += part.counts
            failed += part.failed
    return Part(counts, tuple(sorted(failed)))


def planted_rows(seed: int) -> list[Row]:
    """Each planted bug: after how many schedules it was found, and by which rule."""
    rows: list[Row] = []
    with _quiet(), _encoder() as encoder:
        for bug, (plant, rules) in PLANTED.items():
            tried_until: int | None = None
            rule = ""
            with plant():
                for tried in range(MOST_TO_FIND):
                    findings = play_story(draw_story(seed * 1_000_000 + tried), encoder).findings
                    found = sorted({finding.rule for finding in findings} & rules)
                    if found:
                        tried_until, rule = tried + 1, ", ".join(found)
                        break
            told = {"schedules_until_found": tried_until, "rule": rule}
            rows.append({"system": bug, "table": "planted bugs", **told})
    return rows


def report(seed: int, schedules: int, processes: int) -> Report:
    """Play, plant, and report."""
    begun_s = time.perf_counter()
    part = play_all(seed, schedules, processes)
    took_s = time.perf_counter() - begun_s
    planted = planted_rows(seed)
    wrong = len({seed for seed, _, _ in part.failed})
    found = sum(row["schedules_until_found"] is not None for row in planted)
    row: Row = {
        "system": "weir, as shipped",
        "schedules": schedules,
        "wrong": wrong,
        "schedules_per_s": schedules / took_s,
        **dict(sorted(part.counts.items())),
    }
    marks = [
        Mark("schedules", schedules, "schedules", 10_000, "higher"),
        Mark("schedules with a broken invariant", wrong, "schedules", 0, "lower"),
        Mark("planted bugs found", found, "bugs", len(PLANTED), "higher"),
    ]
    notes = [f"{processes} processes; seeds from {seed * 1_000_000} on."]
    notes += [f"seed {number}: {rule}: {what}" for number, rule, what in part.failed[:20]]
    return Report("faults", seed, [row, *planted], marks, notes)


@contextmanager
def _encoder() -> Iterator[PromptEncoder]:
    with tempfile.TemporaryDirectory() as folder:
        yield word_encoder(Path(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a log line for each of thousands of faults."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser("faults", __doc__)
    parser.add_argument("--schedules", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--story", type=int, metavar="SEED", help="print one story and its findings"
    )
    options = parser.parse_args(argv)
    if options.story is not None:
        return _tell(options.story)
    schedules = min(options.schedules, 200) if options.quick else options.schedules
    return emit(report(options.seed, schedules, options.processes), options, argv)


def _tell(seed: int) -> int:
    story = draw_story(seed)
    with _encoder() as encoder:
        findings = play_story(story, encoder).findings
    print(story)
    print("\n".join(map(str, findings)) or "nothing was wrong")
    return bool(findings)


if __name__ == "__main__":
    raise SystemExit(main())
