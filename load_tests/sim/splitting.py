"""weir with replicas whose roles follow the demand: the rules that ship, on simulated time.

Who decides knows what gateways have told of the last ``WINDOW_S``: the prompt tokens that no cache
was expected to have, and the output tokens as expected at arrival. Every ``PERIOD_S`` it says how
many replicas only compute prompts (:func:`weir.autoscaling.roles.splits`), and
:func:`router.disaggregation.roles.plan_split` says which.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from load_tests.sim.request import SimRequest
from load_tests.sim.timing import StepTiming
from load_tests.sim.weir_system import WeirProfile, WeirSystem
from router.disaggregation.roles import Member, plan_split
from weir.autoscaling.report import Capacity, Demand, ModelState, PoolState
from weir.autoscaling.roles import splits

WINDOW_S = 30.0
PERIOD_S = 5.0
_CHUNK_TOKENS = 2048
_CONTEXT_TOKENS = 2048


def capacity_of(timing: StepTiming, tpot_s: float) -> Capacity:
    """What the autoscaler learns of such an engine: prompts in whole chunks, and as many answers
    at a time as a step within ``tpot_s`` allows."""
    attended = _CHUNK_TOKENS * _CONTEXT_TOKENS
    chunk_s = timing.step_s(_CHUNK_TOKENS, attended, 0, 0)
    each_s = timing.decode_sequence_s + _CONTEXT_TOKENS * timing.decode_context_s
    streams = max(1.0, (tpot_s - timing.fixed_s) / each_s)
    return Capacity(_CHUNK_TOKENS / chunk_s, streams / (timing.fixed_s + streams * each_s))


class SplittingSystem(WeirSystem):
    """Every replica can change its role."""

    def __init__(self, profile: WeirProfile, timing: StepTiming, tpot_s: float) -> None:
        super().__init__(profile)
        self._capacity = capacity_of(timing, tpot_s)
        self._counted: deque[tuple[float, int, int]] = deque()
        self._prefilling = 0
        self._looking = False
        self.changes = 0

    def arrive(self, request: SimRequest) -> None:
        """Offer it to the dispatcher, which counts what arrives; and look at that now and then."""
        super().arrive(request)
        if not self._looking:
            self._looking = True
            self._fleet.after(PERIOD_S, self._look)

    def _look(self, _: Any) -> None:
        now_s = self._fleet.now_s
        seen = self.dispatcher.arrivals.by_class.values()
        computed = sum(each.computed_tokens for each in seen)
        output = sum(each.output_tokens for each in seen)
        self._counted.append((now_s, computed, output))
        while self._counted[0][0] < now_s - WINDOW_S:
            self._counted.popleft()
        _, first_computed, first_output = self._counted[0]
        self._split(computed - first_computed, output - first_output, now_s)
        self._looking = bool(self._running)
        if self._looking:
            self._fleet.after(PERIOD_S, self._look)

    def _split(self, computed: int, output: int, now_s: float) -> None:
        demand = Demand(
            computed_tokens_per_s=computed / WINDOW_S, output_tokens_per_s=output / WINDOW_S
        )
        count, now = len(self._ids), self._prefilling
        pool = PoolState("all", self._capacity, 1.0, ready=count, splits=True, prefilling=now)
        found = splits(ModelState("m", {"standard": demand}, (pool,)))
        if not found:
            return
        self._prefilling = found[pool.name]
        members = [
            Member(m.replica_id, m.role, "mixed", True, self.router.role_changed_s(m.replica_id))
            for m in self.router.members
        ]
        for change in plan_split(members, self._ids, self._prefilling, now_s):
            self.router.change_role(change.replica_id, change.role)
            self.changes += 1
        self.dispatcher.wake()
