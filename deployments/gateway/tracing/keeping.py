"""Which traces are kept: decided when the request is over, from its record."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.gateway.ending import Cause, Ending
from deployments.gateway.record import Record
from weir.settings.tracing import Kept


@dataclass(frozen=True, slots=True)
class Keeping:
    """``always``: what is kept beside the sample. ``slow_s``: see
    :attr:`weir.settings.tracing.TracingSettings.slow_s`."""

    always: frozenset[Kept]
    slow_s: float | None

    def why(self, record: Record, ending: Ending) -> str:
        """``failed``, ``slow``, ``moved``, ``spilled`` or ``sampled``; empty: it is not kept.

        A request that was refused for what it asks, or for its tenant's limits, has not failed; nor
        has one whose client left.
        """
        always = self.always
        if "failed" in always and ending.cause is Cause.FAILED:
            return "failed"
        if "slow" in always and self._is_slow(record, ending):
            return "slow"
        if "moved" in always and _has_moved(record):
            return "moved"
        if "spilled" in always and any(a.step.spill is not None for a in record.attempts):
            return "spilled"
        trace = record.trace
        return "sampled" if trace is not None and trace.sampled else ""

    def _is_slow(self, record: Record, ending: Ending) -> bool:
        took_s = ending.at_s - record.arrival_s
        return ending.late or (self.slow_s is not None and took_s > self.slow_s)


def _has_moved(record: Record) -> bool:
    return any(len(choice.legs) > 1 for attempt in record.attempts for choice in attempt.choices)
