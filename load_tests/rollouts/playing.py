"""One simulated rollout: traffic on two versions, judged and moved on by the code that ships.

Answers are drawn, everything else is real: the split, the pairing, the judge and the course. Load
swings over the day, so that times move by a factor of two within an hour; both versions see the
same load. Times are log-normal with the spread that an interactive class has (a factor of 1.65 to
the standard deviation for TTFT, of 1.2 for TPOT).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from weir.rollouts.course import ENDED, Rollout, advanced
from weir.rollouts.judge import Judge
from weir.rollouts.samples import Arm, Sample
from weir.rollouts.split import is_chosen
from weir.settings.rollout import RolloutSettings

LOOK_S = 5.0
"""So often the judge is asked."""
_TTFT_S, _TPOT_S, _OUTPUT_TOKENS = 0.4, 0.02, 180.0
_SWING_S = 3600.0
#: Two sampled answers to one prompt differ by so much in their mean log-probability.
_NATS = 0.3


@dataclass(frozen=True, slots=True)
class Version:
    """How a version answers. ``slower`` multiplies its times; ``fails``, ``invalid`` and ``other``
    are shares of its answers: errors, broken formats, and texts that differ from the live
    version's at temperature 0 without or with a reason. ``unlikelier``: by so many nats per token
    its answers are less likely to a model that judges, in the mean."""

    slower: float = 1.0
    longer: float = 1.0
    fails: float = 0.001
    invalid: float = 0.002
    other: float = 0.0
    unlikelier: float = 0.0


LIVE = Version()
#: Versions that are tried, and what should become of them. ``other`` 0.005: rounding in another
#: batch changes one answer of 200 of the very same weights.
CANDIDATES: dict[str, tuple[Version, str]] = {
    "the same": (Version(other=0.005), "promoted"),
    "faster by a tenth": (Version(slower=0.9, other=0.005), "promoted"),
    "slower by a fifth": (Version(slower=1.2, other=0.005), "rolled back"),
    "wrong in 1 of 20 answers": (Version(other=0.055), "rolled back"),
    "broken JSON in 1 of 20": (Version(invalid=0.05, other=0.005), "rolled back"),
    "fails 1 of 20": (Version(fails=0.05, other=0.005), "rolled back"),
    "a fifth more perplexity": (
        Version(unlikelier=math.log(1.2), other=0.005),
        "rolled back",
    ),
    "talks twice as long": (Version(longer=2.0, other=0.005), "rolled back"),
}
#: As slow as is just allowed: here the tests' own error rates show, in either direction.
ON_THE_LINE = Version(slower=1.1, other=0.005)


@dataclass(frozen=True, slots=True)
class Played:
    """How a rollout ended. ``exposed``: answers of the candidate that clients saw, of all
    ``answers``."""

    state: str
    reason: str
    hours: float
    exposed: int
    answers: int


def play(candidate: Version, settings: RolloutSettings, per_s: float, seed: int) -> Played:
    """From its start to its end."""
    rng = np.random.default_rng(seed)
    rollout = Rollout(f"r{seed}", "m", "next", settings, 0.0, 0.0)
    judge = Judge(settings.judge)
    now_s, exposed, answers = 0.0, 0, 0
    while rollout.state not in ENDED and now_s < 2 * settings.most_s:
        samples = list(_answers(rollout, candidate, now_s, per_s, rng))
        answers += sum(s.agrees is None for s in samples)
        exposed += sum(s.arm == "candidate" and s.agrees is None for s in samples)
        judge.observe(samples)
        now_s += LOOK_S
        rollout = advanced(rollout, judge.verdict(), now_s)
    return Played(rollout.state, rollout.reason, now_s / 3600.0, exposed, answers)


def _answers(
    rollout: Rollout, candidate: Version, from_s: float, per_s: float, rng: np.random.Generator
) -> Iterator[Sample]:
    """Those of the next seconds, in the order of their ends; mirrored ones as well."""
    count = int(rng.poisson(per_s * LOOK_S))
    for at_s in np.sort(rng.uniform(from_s, from_s + LOOK_S, count)):
        session = f"s{rng.integers(20_000)}"
        chosen = is_chosen(session, rollout.id, rollout.share)
        arm: Arm = "candidate" if chosen else "live"
        yield _answer(arm, candidate if chosen else LIVE, float(at_s), rng)
        if not chosen and rng.random() < rollout.mirror:
            mirrored = _answer("candidate", candidate, float(at_s), rng)
            # At batch priority its times say nothing; what it says does.
            yield replace(
                mirrored,
                stratum="mirrored",
                ttft_s=None,
                tpot_s=None,
                agrees=bool(rng.random() >= candidate.other),
                unlikelier=float(rng.normal(candidate.unlikelier, _NATS)),
            )


def _answer(arm: Arm, version: Version, at_s: float, rng: np.random.Generator) -> Sample:
    if rng.random() < version.fails:
        return Sample(arm, at_s, failed=True)
    swing = math.exp(0.35 * math.sin(2 * math.pi * at_s / _SWING_S)) * version.slower
    asks_json = rng.random() < 0.3
    return Sample(
        arm,
        at_s,
        ttft_s=_TTFT_S * swing * float(rng.lognormal(0.0, 0.5)),
        tpot_s=_TPOT_S * swing * float(rng.lognormal(0.0, 0.18)),
        output_tokens=1 + int(_OUTPUT_TOKENS * version.longer * rng.lognormal(0.0, 0.7)),
        valid=bool(rng.random() >= version.invalid) if asks_json else None,
    )
