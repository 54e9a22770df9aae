"""``weir bench rollout``: are good candidates promoted, and bad ones rolled back?

Each row is a candidate version with a planted property, and so many simulated rollouts of it
(:mod:`load_tests.rollouts.playing`): the split, the pairing, the judge and the course are the code
that ships, with the settings that ship; what is drawn is how the versions answer. The last row is a
candidate that is exactly as slow as is just allowed. There, and nowhere else, the stated error
rates of the tests can be seen: it may be rolled back by error, or promoted by error, in at most
``false_rollback`` and ``false_promotion`` of the rollouts each; mostly there is no verdict.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial

from load_tests.report import Mark, Report, Row, bench_parser, emit, median
from load_tests.rollouts.playing import CANDIDATES, ON_THE_LINE, Played, Version, play
from weir.settings.rollout import JudgeSettings, PerplexitySettings, RolloutSettings

PER_S = 20.0
#: As shipped, but for what has no default: agreement and perplexity are judged, and who gets no
#: verdict is held.
SETTINGS = RolloutSettings(
    mirror=0.05,
    judge=JudgeSettings(disagreement=0.02, perplexity=PerplexitySettings(model="judge")),
    most_s=7200.0,
    on_timeout="hold",
)
_LINE = "exactly as slow as is allowed"


def play_one(version: Version, seed: int) -> Played:
    """One rollout; called in a process of its own."""
    return play(version, SETTINGS, PER_S, seed)


def row_of(name: str, wanted: str, played: Sequence[Played]) -> Row:
    """What the rollouts of one candidate came to."""
    states = Counter(each.state for each in played)
    return {
        "system": name,
        "should be": wanted,
        "rollouts": len(played),
        "promoted": states["promoted"],
        "rolled_back": states["rolled back"],
        "no_verdict": len(played) - states["promoted"] - states["rolled back"],
        "hours_p50": median(each.hours for each in played),
        "answers_by_candidate_p50": median(each.exposed for each in played),
        "deciding": ", ".join(sorted({each.reason.rpartition(": ")[2] for each in played})),
    }


def report(seed: int, rollouts: int, processes: int) -> Report:
    """Play all, and report."""
    rows: list[Row] = []
    seeds = range(seed * 1_000_000, seed * 1_000_000 + rollouts)
    candidates = {**CANDIDATES, _LINE: (ON_THE_LINE, "either, seldom")}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for name, (version, wanted) in candidates.items():
            played = pool.map(partial(play_one, version), seeds, chunksize=5)
            rows.append(row_of(name, wanted, played))
    notes = (
        f"{PER_S:g} requests a second, 30 % of them ask for JSON, 5 % of the others are mirrored; "
        f"steps {', '.join(f'{step:.0%}' for step in SETTINGS.steps)} of {SETTINGS.step_s:g} s; "
        f"at most {SETTINGS.most_s / 3600:g} hours.",
        "Simulated: the answers. As shipped: split, pairing, judge, course.",
    )
    return Report("rollout", seed, rows, marks_of(rows), notes)


def marks_of(rows: Sequence[Row]) -> list[Mark]:
    """The share of rollouts that went wrong, against the error rates of the settings."""
    marks = []
    judge = SETTINGS.judge
    for row in rows:
        name, count = row["system"], row["rollouts"]
        if row["should be"] == "promoted":
            wrong = row["rolled_back"] / count
            marks.append(
                Mark(f"{name}: rolled back", wrong, "share", judge.false_rollback, "lower")
            )
            marks.append(
                Mark(f"{name}: promoted", row["promoted"] / count, "share", 0.95, "higher")
            )
        elif row["should be"] == "rolled back":
            wrong = row["promoted"] / count
            marks.append(Mark(f"{name}: promoted", wrong, "share", judge.false_promotion, "lower"))
            found = row["rolled_back"] / count
            marks.append(Mark(f"{name}: rolled back", found, "share", 0.95, "higher"))
        else:
            back, ahead = row["rolled_back"] / count, row["promoted"] / count
            marks.append(Mark(f"{name}: rolled back", back, "share", judge.false_rollback, "lower"))
            marks.append(Mark(f"{name}: promoted", ahead, "share", judge.false_promotion, "lower"))
    return marks


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser("rollout", __doc__)
    parser.add_argument("--rollouts", type=int, default=200, help="of each candidate")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    rollouts = min(options.rollouts, 3) if options.quick else options.rollouts
    return emit(report(options.seed, rollouts, options.processes), options, argv)


if __name__ == "__main__":
    raise SystemExit(main())
