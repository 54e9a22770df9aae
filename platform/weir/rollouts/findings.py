"""What the judge says (:mod:`weir.rollouts.judge`). Apart from it, because whoever follows a
rollout's course needs no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["wait", "roll back", "promote"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion as it stands. ``samples``: pairs, or single answers, that it has seen.
    ``observed`` is compared with ``allowed``: for times and lengths, the share of pairs in which
    the candidate is beyond the ratio (allowed: half of them); for errors, formats and agreement,
    a difference or a share; for perplexity, by what share it is higher in the geometric mean.
    ``evidence_bad`` and ``evidence_good`` are e-values: 20 means that the opposite would look like
    this at most once in 20 rollouts, looked at all the time."""

    criterion: str
    samples: int
    observed: float | None
    allowed: float
    evidence_bad: float
    evidence_good: float
    bad: bool
    good: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the findings come to, and the criterion that decided, if one did."""

    action: Action
    findings: tuple[Finding, ...]
    because: str = ""
