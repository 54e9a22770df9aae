"""The student answers first; is it sure enough? Pure.

The signal is the mean log-probability of the answer's first tokens, which costs nothing to have
(Kadavath et al., "Language Models (Mostly) Know What They Know", 2022, and Gupta et al., "Language
Model Cascades: Token-level uncertainty and beyond", ICLR 2024, study such signals). The order
cheap-first is FrugalGPT's (Chen, Zaharia and Zou, 2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What becomes of the student's answer."""

    HOLD = "hold"
    KEEP = "keep"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class CascadeRule:
    """Keep an answer whose first ``first_tokens`` tokens (or all, of a shorter one) have a mean
    log-probability of at least ``threshold``."""

    first_tokens: int
    threshold: float


class Watch:
    """Follows one answer until its verdict."""

    def __init__(self, rule: CascadeRule) -> None:
        self._rule = rule
        self._sum = 0.0
        self._tokens = 0

    @property
    def mean_logprob(self) -> float | None:
        """Of the tokens seen so far, at most ``first_tokens``; None before the first."""
        return self._sum / self._tokens if self._tokens else None

    def add(self, logprobs: Iterable[float], ended: bool = False) -> Verdict:
        """More tokens came; ``ended``: they were the last."""
        rule = self._rule
        for logprob in logprobs:
            if self._tokens == rule.first_tokens:
                break
            self._sum += logprob
            self._tokens += 1
        # Log-probabilities only lower the sum: what is lost already need not be waited for.
        if self._sum < rule.threshold * rule.first_tokens and not ended:
            return Verdict.ESCALATE
        if self._tokens < rule.first_tokens and not ended:
            return Verdict.HOLD
        mean = self.mean_logprob
        sure = mean is not None and mean >= rule.threshold
        return Verdict.KEEP if sure else Verdict.ESCALATE
