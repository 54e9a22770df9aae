"""What is known of one answer, for comparing two versions, and which answers are compared."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Literal

Arm = Literal["live", "candidate"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer by one version. ``at_s`` is when it ended. ``ttft_s`` and ``tpot_s`` are None
    where there were none (an error; a single token). ``failed``: the client, or who mirrored it,
    saw an error of the platform's making. ``valid``: whether the answer is in the format that was
    asked for (None: none was). ``agrees``: of an answer that was mirrored, whether both versions
    said the same (None: it was not, or was sampled). ``unlikelier``: of an answer that was mirrored
    and scored, by how many nats per token it is less likely to the judge's model than the live
    version's answer to the same prompt (negative: it is likelier). ``stratum``: only answers of one
    stratum are compared, such as those of one priority class with prompts of similar length."""

    arm: Arm
    at_s: float
    stratum: str = ""
    ttft_s: float | None = None
    tpot_s: float | None = None
    output_tokens: int = 0
    failed: bool = False
    valid: bool | None = None
    agrees: bool | None = None
    unlikelier: float | None = None


Pair = tuple[Sample, Sample]
"""A candidate's sample, and a live one."""


class Pairing:
    """Puts each of the candidate's answers beside the latest live one of the same stratum, each
    used once, and none older than ``within_s``. Load changes over the day, so a pair must see the
    same load: with the oldest live answer that is left instead of the latest, a load that rises by
    a tenth in two minutes would look like a candidate that is slower by a tenth."""

    def __init__(self, within_s: float = 30.0) -> None:
        self._within_s = within_s
        self._waiting: dict[tuple[Arm, str], deque[Sample]] = defaultdict(deque)

    def add(self, sample: Sample) -> Pair | None:
        """The pair that the sample completes, if there is one."""
        other: Arm = "live" if sample.arm == "candidate" else "candidate"
        partners = self._fresh(other, sample)
        if not partners:
            self._fresh(sample.arm, sample).append(sample)
            return None
        partner = partners.pop()
        return (sample, partner) if sample.arm == "candidate" else (partner, sample)

    def _fresh(self, arm: Arm, now: Sample) -> deque[Sample]:
        waiting = self._waiting[arm, now.stratum]
        while waiting and waiting[0].at_s < now.at_s - self._within_s:
            waiting.popleft()
        return waiting
