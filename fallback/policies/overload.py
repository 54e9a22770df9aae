"""Whether the teacher's queue is too long for a class's SLO."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fallback.policies.hysteresis import Hysteresis
from weir.settings.fallback import OverloadSettings

# How much a new measurement of the first token's time counts; about the last ten count.
_NEW = 0.1


class OverloadPolicy:
    """``slo_s``: each class's limit for the time to the first token. A class without one never
    spills by prediction, and waits as long as admission lets it."""

    def __init__(
        self, settings: OverloadSettings, slo_s: Mapping[str, float], clock: Callable[[], float]
    ) -> None:
        self._slo_s = dict(slo_s)
        self._enter_at = settings.enter_at
        self._switches = {
            name: Hysteresis(settings.enter_at, settings.leave_at, settings.dwell_s, clock)
            for name in slo_s
        }
        self._first_token_s = 0.0

    def observe_first_token(self, seconds: float) -> None:
        """So long took a replica from dispatch to first token."""
        self._first_token_s += _NEW * (seconds - self._first_token_s)

    def judge(self, priority_class: str, predicted_wait_s: float | None) -> bool:
        """Should a request that would wait so long (None: not known) spill?"""
        switch = self._switches.get(priority_class)
        if switch is None:
            return False
        if predicted_wait_s is None:
            return switch.on
        expected_s = predicted_wait_s + self._first_token_s
        return switch.update(expected_s / self._slo_s[priority_class])

    def spilling(self, priority_class: str) -> bool:
        """Whether the class spills at present."""
        switch = self._switches.get(priority_class)
        return switch is not None and switch.on

    def patience_s(self, priority_class: str) -> float | None:
        """After so long in the queue a request spills, whatever had been predicted; None: never."""
        slo_s = self._slo_s.get(priority_class)
        return None if slo_s is None else self._enter_at * slo_s
