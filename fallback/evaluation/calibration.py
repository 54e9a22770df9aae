"""Confidence against truth: pure functions of (confidence, was it right) pairs.

Expected calibration error with equal-width bins is Naeini et al. (2015), as Guo et al., "On
Calibration of Modern Neural Networks" (2017) use it; the logistic fit is Platt (1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose confidence lies in (low, high]; means of confidence and of being right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(
    confidences: Sequence[float], right: Sequence[bool], bins: int = 10
) -> tuple[Bin, ...]:
    """Equal-width bins over 0..1 that hold anything.

    Raises:
        ValueError: a confidence outside 0..1, or sequences of different length.
    """
    held: dict[int, list[tuple[float, bool]]] = {}
    for confidence, ok in zip(confidences, right, strict=True):
        if not 0 <= confidence <= 1:
            raise ValueError(f"a confidence lies in 0..1, not at {confidence}")
        held.setdefault(max(0, math.ceil(confidence * bins) - 1), []).append((confidence, ok))
    return tuple(
        Bin(
            number / bins,
            (number + 1) / bins,
            len(pairs),
            sum(confidence for confidence, _ in pairs) / len(pairs),
            sum(ok for _, ok in pairs) / len(pairs),
        )
        for number, pairs in sorted(held.items())
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean gap between confidence and accuracy, weighted by the bins' sizes; 0 of nothing."""
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / max(1, total)


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right answer scores above a wrong one, ties counting half.

    None where all are right or all wrong.
    """
    pairs = sorted(zip(scores, right, strict=True))
    positives = sum(right)
    negatives = len(pairs) - positives
    if positives == 0 or negatives == 0:
        return None
    rank_sum, start = 0.0, 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end][0] == pairs[start][0]:
            end += 1
        mean_rank = (start + 1 + end) / 2
        rank_sum += mean_rank * sum(ok for _, ok in pairs[start:end])
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


@dataclass(frozen=True, slots=True)
class Platt:
    """P(right) = 1 / (1 + exp(-(slope x score + offset)))."""

    slope: float
    offset: float

    def probability(self, score: float) -> float:
        """0 to 1."""
        power = max(-60.0, min(60.0, self.slope * score + self.offset))
        return 1 / (1 + math.exp(-power))


def fit_platt(scores: Sequence[float], right: Sequence[bool], rounds: int = 60) -> Platt:
    """Logistic regression by Newton's method, on Platt's softened targets.

    The targets, (n+ + 1) / (n+ + 2) and 1 / (n- + 2), keep the fit finite where all are right.
    """
    positives = sum(right)
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(right) - positives + 2)
    slope, offset = 0.0, math.log((positives + 1) / (len(right) - positives + 1))
    for _ in range(rounds):
        current = Platt(slope, offset)
        g1 = g0 = h11 = h10 = h00 = 0.0
        for score, ok in zip(scores, right, strict=True):
            p = current.probability(score)
            gap, weight = p - (high if ok else low), max(p * (1 - p), 1e-9)
            g1 += gap * score
            g0 += gap
            h11 += weight * score * score
            h10 += weight * score
            h00 += weight
        h11, h00 = h11 + 1e-6, h00 + 1e-6
        determinant = h11 * h00 - h10 * h10
        if determinant <= 0:
            break
        step_slope = (h00 * g1 - h10 * g0) / determinant
        step_offset = (h11 * g0 - h10 * g1) / determinant
        slope, offset = slope - step_slope, offset - step_offset
        if abs(step_slope) + abs(step_offset) < 1e-9:
            break
    return Platt(slope, offset)


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands at a threshold: share of all answers, and how many of those are right."""

    coverage: float
    accuracy: float | None


def kept(scores: Sequence[float], right: Sequence[bool], threshold: float) -> Kept:
    """Answers that score at least `threshold`."""
    standing = [ok for score, ok in zip(scores, right, strict=True) if score >= threshold]
    accuracy = sum(standing) / len(standing) if standing else None
    return Kept(len(standing) / max(1, len(scores)), accuracy)


def fit_threshold(scores: Sequence[float], right: Sequence[bool], target: float) -> float | None:
    """The threshold that keeps most answers while those kept are right often enough.

    Often enough: the accuracy less one standard error (Wilson's lower bound at z = 1) reaches
    `target`, so that it also holds on answers that were not used to fit it. None if no threshold
    does.
    """
    pairs = sorted(zip(scores, right, strict=True), reverse=True)
    best: float | None = None
    ok_so_far = 0
    for count, (score, ok) in enumerate(pairs, start=1):
        ok_so_far += ok
        last_of_its_score = count == len(pairs) or pairs[count][0] < score
        if last_of_its_score and _wilson_low(ok_so_far, count) >= target:
            best = score
    return best


def _wilson_low(right: int, asked: int, z: float = 1.0) -> float:
    """Wilson's (1927) lower confidence bound of a share."""
    share, z2 = right / asked, z * z
    middle = share + z2 / (2 * asked)
    spread = z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked))
    return (middle - spread) / (1 + z2 / asked)
