"""Batch work of the fluid model: first come, first served, in what urgent work leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from load_tests.autoscaling.fleet import Outcome
from weir.autoscaling.report import Demand

#: A policy is told that work has at least so long.
_LEAST_S = 300.0


class BatchWork:
    """``within_s``: what has not been done so long after it came is late."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._rows: deque[list[float]] = deque()  # arrival, requests, prompt and output tokens
        self._left = [0.0, 0.0, 0.0]  # the sums of the last three

    def arrive(self, now_s: float, requests: float, prompts: float, outputs: float) -> None:
        """In one tick."""
        self._rows.append([now_s, requests, prompts, outputs])
        for index, amount in enumerate((requests, prompts, outputs)):
            self._left[index] += amount

    def work_off(
        self, now_s: float, seconds: float, prompts_per_s: float, outputs_per_s: float, out: Outcome
    ) -> float:
        """Do as much as fits into so many seconds of the whole fleet; what of them is left."""
        while self._rows and seconds > 1e-9:
            row = self._rows[0]
            at_s, requests, prompts, outputs = row
            needs_s = prompts / prompts_per_s + outputs / outputs_per_s
            done = min(1.0, seconds / needs_s) if needs_s > 0 else 1.0
            seconds -= needs_s * done
            tokens = (prompts + outputs) * done
            out.batch += tokens
            if now_s - at_s > self._within_s:
                out.late_batch += tokens
            for index, amount in enumerate((requests, prompts, outputs)):
                self._left[index] = max(0.0, self._left[index] - amount * done)
            if done < 1:
                row[1:] = [requests * (1 - done), prompts * (1 - done), outputs * (1 - done)]
                break
            self._rows.popleft()
        return seconds

    def end(self, out: Outcome, now_s: float) -> None:
        """The run is over: what should have been done by now is late."""
        for at_s, _, prompts, outputs in self._rows:
            if now_s - at_s > self._within_s:
                out.batch += prompts + outputs
                out.late_batch += prompts + outputs

    def demand(self, now_s: float, rates: Sequence[float]) -> Demand:
        """As a policy sees it. ``rates``: requests, prompt and output tokens that arrive a second.
        It is told that half of what the oldest work has left is left."""
        oldest_s = now_s - self._rows[0][0] if self._rows else 0.0
        arrivals, computed, output = rates
        requests, prompts, outputs = self._left
        return Demand(
            arrivals,
            computed,
            output,
            round(requests),
            prompts,
            outputs,
            oldest_s,
            deferrable_s=max(_LEAST_S, (self._within_s - oldest_s) / 2),
        )
