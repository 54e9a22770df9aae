"""How long an engine step takes: a linear model, and its closed form over many decode steps."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Seconds per step = sum of the fields times what the step does.

    ``attended`` counts (new prompt token, earlier token) pairs; ``context`` the tokens that the
    decoding sequences hold. Vidur (MLSys'24) and DistServe (OSDI'24) use the same features.
    """

    name: str
    fixed_s: float
    prefill_token_s: float
    prefill_attended_s: float
    decode_sequence_s: float
    decode_context_s: float
    source: str = ""

    def step_s(self, tokens: int, attended: float, sequences: int, context: float) -> float:
        """One step with ``tokens`` of prefill and ``sequences`` decoding."""
        return (
            self.fixed_s
            + tokens * self.prefill_token_s
            + attended * self.prefill_attended_s
            + sequences * self.decode_sequence_s
            + context * self.decode_context_s
        )

    def decode_s(self, steps: int, sequences: int, context: float) -> float:
        """``steps`` pure decode steps, ``context`` tokens held before the first."""
        first = self.fixed_s + sequences * self.decode_sequence_s + context * self.decode_context_s
        grown = sequences * steps * (steps - 1) / 2
        return steps * first + grown * self.decode_context_s

    def steps_in(self, elapsed_s: float, sequences: int, context: float) -> int:
        """The fewest whole decode steps that take at least ``elapsed_s`` (at least 1)."""
        bend = self.decode_context_s * sequences / 2
        first = self.fixed_s + sequences * self.decode_sequence_s + context * self.decode_context_s
        slope = first - bend
        if bend <= 0:
            steps = elapsed_s / slope
        else:
            steps = (math.sqrt(slope * slope + 4 * bend * elapsed_s) - slope) / (2 * bend)
        return max(1, math.ceil(steps - 1e-9))

    def prefill_s(self, new_tokens: int, cached_tokens: int, step_tokens: int) -> float:
        """A prompt alone on the engine, in chunks of ``step_tokens``."""
        steps = max(1, math.ceil(new_tokens / step_tokens))
        attended = new_tokens * (cached_tokens + new_tokens / 2)
        return (
            steps * self.fixed_s
            + new_tokens * self.prefill_token_s
            + attended * self.prefill_attended_s
        )
