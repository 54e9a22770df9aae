"""What a replica can do, learned from what replicas have done.

A step of an engine takes ``c + a * prompt tokens + b * answers``: something fixed, and something
for each token that it computes of prompts and for each answer that goes on by one token. The three
are fitted by recursive least squares with forgetting (Ljung, System Identification, 1999, 11.2) to
the time that steps took over a window. What was assumed before anything was seen is where the fit
begins, and what has not been seen (prompts only, say) stays as assumed.

A replica that has just started compiles, allocates and fills its cache; what it does then is left
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weir.autoscaling.report import Capacity

_FORGETTING = 0.98
#: How sure the prior is: the standard deviation of each coefficient as a share of its value.
_UNSURE = 1.0
_FLOOR = 0.02
#: Tokens of prompts in a step that does nothing else.
_CHUNK_TOKENS = 2048.0
#: Half-life of the published error, in observations: about 20.
_ERROR_PART = 0.034
_LEAST_STEPS = 10
_NOISE = 0.05
_KNOWN_H = 100.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What one replica did in one window."""

    steps: float
    prefill_tokens: float
    decode_tokens: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class CapacityFit:
    """``seconds``: for a step, for a prompt token, for an answer's token. ``error``: mean absolute
    error of its predictions before each observation was learned, as a share; ``seen``: how many."""

    seconds: tuple[float, float, float]
    covariance: tuple[float, ...]
    usable: float
    seen: int = 0
    error: float = 0.0

    @classmethod
    def assumed(cls, prior: Capacity) -> CapacityFit:
        """Where nothing has been observed."""
        prefill, decode = 1 / prior.prefill_tokens_per_s, 1 / prior.decode_tokens_per_s
        # Half of a step's time is fixed where about eight answers go on in each.
        seconds = (4.0 * decode, prefill, decode / 2)
        spread = np.diag([(_UNSURE * each) ** 2 for each in seconds])
        return cls(seconds, tuple(spread.ravel().tolist()), prior.usable)

    def learned(self, seen: Observed) -> CapacityFit:
        """After one more observation; the same where it says too little."""
        if seen.steps < _LEAST_STEPS or seen.busy_s <= 0:
            return self
        features = np.array([seen.steps, seen.prefill_tokens, seen.decode_tokens])
        # Windows count alike, however much was done in them.
        features, took = features / seen.busy_s, 1.0
        theta, spread = np.array(self.seconds), np.array(self.covariance).reshape(3, 3)
        told = float(features @ theta)
        gain = spread @ features / (_FORGETTING * _NOISE**2 + features @ spread @ features)
        theta = np.maximum(theta + gain * (took - told), _FLOOR * np.array(self.seconds))
        spread = (spread - np.outer(gain, features) @ spread) / _FORGETTING
        spread = _bounded((spread + spread.T) / 2, theta)
        missed = min(1.0, abs(told - took))
        error = missed if not self.seen else self.error + _ERROR_PART * (missed - self.error)
        seconds = (float(theta[0]), float(theta[1]), float(theta[2]))
        return replace(
            self,
            seconds=seconds,
            covariance=tuple(spread.ravel().tolist()),
            seen=self.seen + 1,
            error=error,
        )

    def capacity(self, tpot_slo_s: float, most_running: int) -> Capacity:
        """Of one replica: as many answers at a time as a step within TPOT allows."""
        step, prompt, answer = self.seconds
        within = (tpot_slo_s - step) / answer
        streams = max(1.0, min(within, float(most_running or 256)))
        return Capacity(
            1 / (prompt + step / _CHUNK_TOKENS),
            streams / (step + answer * streams),
            self.usable,
            self.error,
        )


def _bounded(spread: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Forgetting makes what is not excited ever more uncertain; no more than it was at first."""
    most = (2 * _UNSURE * theta) ** 2
    scale = np.sqrt(np.minimum(1.0, most / np.maximum(np.diag(spread), 1e-30)))
    bounded: np.ndarray = spread * np.outer(scale, scale)
    return bounded


@dataclass(frozen=True, slots=True)
class StartUp:
    """How long replicas took to start: mean and mean deviation of what was seen."""

    assumed_s: float
    mean_s: float = 0.0
    deviation_s: float = 0.0
    seen: int = 0

    def learned(self, took_s: float) -> StartUp:
        """After one more; single ones weigh less the more have been seen."""
        if not self.seen:
            return replace(self, mean_s=took_s, deviation_s=took_s / 4, seen=1)
        part = max(0.1, 1 / (self.seen + 1))
        missed = took_s - self.mean_s
        return replace(
            self,
            mean_s=self.mean_s + part * missed,
            deviation_s=self.deviation_s + part * (abs(missed) - self.deviation_s),
            seen=self.seen + 1,
        )

    @property
    def usual_s(self) -> float:
        """What to reckon with."""
        return self.mean_s + 2 * self.deviation_s if self.seen else self.assumed_s


@dataclass(frozen=True, slots=True)
class Interruptions:
    """How often machines of one kind were taken away. The settings' rate counts like ``_KNOWN_H``
    hours of observation."""

    assumed_per_hour: float = 0.0
    replica_hours: float = 0.0
    seen: int = 0

    def learned(self, replica_hours: float, interrupted: int) -> Interruptions:
        """After so many more replica-hours."""
        hours = self.replica_hours + replica_hours
        return replace(self, replica_hours=hours, seen=self.seen + interrupted)

    @property
    def per_hour(self) -> float:
        """Of one replica."""
        expected = self.assumed_per_hour * _KNOWN_H
        return (expected + self.seen) / (_KNOWN_H + self.replica_hours)


@dataclass(slots=True)
class StartClock:
    """Matches the replicas that were asked for with those that came, first to first."""

    asked_s: list[float] = field(default_factory=list)

    def asked(self, now_s: float, more: int) -> None:
        """So many more replicas were asked for; with less than 0, as many fewer."""
        if more > 0:
            self.asked_s += [now_s] * more
        elif more < 0:
            del self.asked_s[more:]

    def came(self, at_s: Sequence[float]) -> list[float]:
        """How long those took that serve now; those that nobody asked for say nothing."""
        took = []
        for each_s in at_s:
            if self.asked_s:
                took.append(max(0.0, each_s - self.asked_s.pop(0)))
        return took
