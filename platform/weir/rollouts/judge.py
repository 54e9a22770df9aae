"""Is a candidate as good as the version that is live? Sequential tests, one for each criterion.

For each criterion there is a boundary that the settings choose, and evidence in both directions
(:mod:`weir.rollouts.evidence`): that the candidate is on the bad side of it, and that it is on the
good side. One criterion that is clearly bad is enough to roll back; all must be clearly good to
promote. Error rates hold over the whole rollout, at whatever moment it ends:

- a candidate that is within all boundaries is rolled back with probability at most
  ``false_rollback`` (divided among the criteria: Bonferroni);
- one that is beyond any boundary is promoted with probability at most ``false_promotion`` (all
  criteria have to pass, so nothing has to be divided: an intersection-union test, Berger 1982).

Times and lengths are compared by pairs: is the candidate's above the live one's times the ratio
that is allowed? If both were equally distributed up to that ratio, half of the pairs would say so,
whatever the distribution, however heavy its tail.

Perplexity is compared by pairs as well, of two answers to one prompt. There it is the mean that
counts, because a candidate that is mostly as good and sometimes talks nonsense has the live one's
median. A difference counts with at most :data:`MOST_NATS` per token, so that it has bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from weir.rollouts.evidence import TwoSided
from weir.rollouts.findings import Finding, Verdict
from weir.rollouts.samples import Pair, Pairing, Sample
from weir.settings.rollout import JudgeSettings

#: Nonsense is some 8 nats per token less likely to a model than what it would say itself.
MOST_NATS = 4.0
#: Criteria of which there may never be anything to see: nobody asks for JSON, or at temperature 0.
_MAY_BE_UNSEEN = ("format", "disagreement")


class _Criterion:
    """``low`` and ``high``: between them lies every number that it is given. ``told``: how such a
    number is told to people."""

    def __init__(
        self,
        name: str,
        allowed: float,
        low: float,
        high: float,
        told: Callable[[float], float] = float,
    ) -> None:
        self.name = name
        self.allowed = allowed
        self.told = told
        self.test = TwoSided(allowed, low, high)


_Numbers = dict[str, list[float]]


class Judge:
    """Takes samples as they come; its verdict can be read at any time."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._pairing = Pairing()
        self._seen = 0
        half, s = 0.5, settings
        made = [
            _Criterion("ttft", half, 0.0, 1.0),
            _Criterion("tpot", half, 0.0, 1.0),
            _Criterion("errors", s.more_errors, -1.0, 1.0),
            _Criterion("longer", half, 0.0, 1.0),
            _Criterion("shorter", half, 0.0, 1.0),
        ]
        if s.more_invalid is not None:
            made.append(_Criterion("format", s.more_invalid, -1.0, 1.0))
        if s.disagreement is not None:
            made.append(_Criterion("disagreement", s.disagreement, 0.0, 1.0))
        if s.perplexity is not None:
            most_nats = math.log1p(s.perplexity.worse_by)
            nats = _Criterion("perplexity", most_nats, -MOST_NATS, MOST_NATS, math.expm1)
            made.append(nats)
        self._criteria = {each.name: each for each in made}

    def observe(self, samples: Sequence[Sample]) -> None:
        """Answers of both versions, as they ended."""
        numbers: _Numbers = {name: [] for name in self._criteria}
        for sample in samples:
            if sample.arm == "candidate":
                self._seen += 1
                for name, value in _alone(sample):
                    if name in numbers:
                        numbers[name].append(value)
            pair = self._pairing.add(sample)
            if pair is not None:
                for name, value in self._compared(pair):
                    if name in numbers:
                        numbers[name].append(value)
        for name, values in numbers.items():
            self._criteria[name].test.observe(values)

    def verdict(self) -> Verdict:
        """What all that was observed comes to."""
        s = self._settings
        bad_log = math.log(len(self._criteria) / s.false_rollback)
        good_log = math.log(1.0 / s.false_promotion)
        findings = tuple(_finding(each, bad_log, good_log) for each in self._criteria.values())
        bad = next((f for f in findings if f.bad), None)
        if bad is not None:
            return Verdict("roll back", findings, bad.criterion)
        asked = [f for f in findings if f.samples or f.criterion not in _MAY_BE_UNSEEN]
        if self._seen >= s.least_answers and all(f.good for f in asked):
            return Verdict("promote", findings)
        return Verdict("wait", findings)

    def _compared(self, pair: Pair) -> Iterator[tuple[str, float]]:
        candidate, live = pair
        s = self._settings
        yield "errors", float(candidate.failed) - float(live.failed)
        if candidate.ttft_s is not None and live.ttft_s is not None:
            yield "ttft", _beyond(candidate.ttft_s, live.ttft_s * s.ttft_ratio)
        if candidate.tpot_s is not None and live.tpot_s is not None:
            yield "tpot", _beyond(candidate.tpot_s, live.tpot_s * s.tpot_ratio)
        if candidate.output_tokens and live.output_tokens:
            yield "longer", _beyond(candidate.output_tokens, live.output_tokens * s.length_ratio)
            yield "shorter", _beyond(live.output_tokens, candidate.output_tokens * s.length_ratio)
        if candidate.valid is not None and live.valid is not None:
            yield "format", float(not candidate.valid) - float(not live.valid)


def _alone(sample: Sample) -> Iterator[tuple[str, float]]:
    """What a candidate's answer says without a pair."""
    if sample.agrees is not None:
        yield "disagreement", float(not sample.agrees)
    if sample.unlikelier is not None:
        yield "perplexity", max(-MOST_NATS, min(MOST_NATS, sample.unlikelier))


def _beyond(value: float, limit: float) -> float:
    """1 if it is beyond the limit, ½ on it."""
    return 0.5 if value == limit else float(value > limit)


def _finding(criterion: _Criterion, bad_log: float, good_log: float) -> Finding:
    test = criterion.test
    above, below = test.log_above, test.log_below
    return Finding(
        criterion.name,
        test.count,
        None if test.mean is None else criterion.told(test.mean),
        criterion.told(criterion.allowed),
        _e_value(above),
        _e_value(below),
        above >= bad_log,
        below >= good_log,
    )


def _e_value(log: float) -> float:
    return math.exp(min(log, 60.0))
