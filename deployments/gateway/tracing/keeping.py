"""Which traces are kept: decided when the request is over, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.gateway.settle import Record
from weir.settings.tracing import Kept


@dataclass(frozen=True, slots=True)
class Keeping:
    """``always``: what is kept beside the sample. ``slow_s``: see
    :attr:`weir.settings.tracing.TracingSettings.slow_s`; ``slo_s``: time-to-first-token limit per
    priority class."""

    always: frozenset[Kept]
    slow_s: float | None
    slo_s: Mapping[str, float]

    def why(self, record: Record, now_s: float) -> str:
        """``failed``, ``slow``, ``moved``, ``spilled`` or ``sampled``; empty: it is not kept.

        A request that was refused for what it asks, or for its tenant's limits, has not failed; nor
        has one whose client left.
        """
        always = self.always
        if "failed" in always and record.error is not None and record.error.status >= 500:
            return "failed"
        if "slow" in always and self._is_slow(record, now_s):
            return "slow"
        if "moved" in always and _has_moved(record):
            return "moved"
        if "spilled" in always and any(a.step.spill is not None for a in record.attempts):
            return "spilled"
        trace = record.trace
        return "sampled" if trace is not None and trace.sampled else ""

    def _is_slow(self, record: Record, now_s: float) -> bool:
        took_s = now_s - record.arrival_s
        if self.slow_s is not None and took_s > self.slow_s:
            return True
        request = record.request
        limit_s = self.slo_s.get(request.priority_class) if request is not None else None
        if limit_s is None or took_s <= limit_s:
            return False
        firsts = [a.first_output_s for a in record.attempts if a.first_output_s is not None]
        return not firsts or firsts[-1] - record.arrival_s > limit_s


def _has_moved(record: Record) -> bool:
    return any(len(choice.legs) > 1 for attempt in record.attempts for choice in attempt.choices)
