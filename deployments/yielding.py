"""vLLM's scheduler, with prompts that give way between two steps.

vLLM's priority scheduling orders what waits and chooses whom to preempt when KV runs out, but a
prompt that has begun is computed to its end: beside a batch prompt of 100,000 tokens an interactive
request waits fifty steps for its first token. Here it waits for the step under way
(:mod:`router.yielding` has the rule). Who is left out of a step keeps its KV blocks and goes on
afterwards.

A step is only ever as vLLM might have composed it with a smaller budget and fewer running
sequences: what a paused sequence looks like to the rest of the engine, a sequence that found no
budget does as well. vLLM's schedulers are underneath, whose interface carries no promise;
``tests/deployments/test_yielding.py`` runs one in a real engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from deployments.resuming import Resuming
from router.admission.engine_priority import engine_urgency
from router.yielding import MOST_STEPS_PAUSED, Running, urgent_step


def let_yield(config: Any) -> bool:
    """Have the engine of a ``VllmConfig`` yield; False (and nothing changed) where it orders by
    arrival only or has a scheduler of its own."""
    scheduling = config.scheduler_config
    if scheduling.policy != "priority" or scheduling.scheduler_cls is not None:
        return False
    kind = YieldingAsyncScheduler if scheduling.async_scheduling else YieldingScheduler
    # By name: the engine core may be built in another process.
    scheduling.scheduler_cls = f"{kind.__module__}.{kind.__qualname__}"
    return True


class _Yielding(Resuming):
    """See the module's docstring."""

    running: list[Any]
    max_num_scheduled_tokens: int
    max_num_running_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.paused_in_a_row = 0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; see the base class."""
        running = self.running
        step = None
        if self.paused_in_a_row < MOST_STEPS_PAUSED:
            step = urgent_step(
                [_sequence(request) for request in running],
                self._beginnable(),
                self.max_num_scheduled_tokens,
            )
        if step is None or not self._fits(step.budget):
            self.paused_in_a_row = 0
            return super().schedule(*args, **kwargs)
        paused = [request for i, request in enumerate(running) if i not in step.members]
        whole, places = self.max_num_scheduled_tokens, self.max_num_running_reqs
        self.running = [request for i, request in enumerate(running) if i in step.members]
        self.max_num_scheduled_tokens = step.budget
        self.max_num_running_reqs -= len(paused)
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            self.running = self.running + paused
            self.max_num_scheduled_tokens, self.max_num_running_reqs = whole, places
        # Nothing could be scheduled after all (a blocked head): the next step is everybody's.
        did_something = output.total_num_scheduled_tokens > 0
        self.paused_in_a_row = self.paused_in_a_row + 1 if did_something else MOST_STEPS_PAUSED
        return output

    def _beginnable(self) -> Iterable[tuple[int, int]]:
        """What waits and is not blocked, as far as its urgency is that of the first."""
        urgency = None
        for request in self.waiting:
            if self._is_blocked_waiting_status(request.status):
                continue
            own = engine_urgency(request.priority)
            if urgency is None:
                urgency = own
            if own != urgency:
                return
            yield urgency, request.num_tokens

    def _fits(self, tokens: int) -> bool:
        """Whether there is KV space for the step without preempting anybody: vLLM would look for
        a victim among those who take part, and they are the urgent ones."""
        free: int = self.kv_cache_manager.block_pool.get_num_free_blocks()
        size: int = self.block_size
        return free > tokens // size + 2 * len(self.running)


def _sequence(request: Any) -> Running:
    tokens = request.num_tokens_with_spec + request.num_output_placeholders
    left = tokens - request.num_computed_tokens
    return Running(engine_urgency(request.priority), left, request.is_prefill_chunk)


class YieldingScheduler(_Yielding):
    """For engines that wait for each step's tokens."""


class YieldingAsyncScheduler(_Yielding, AsyncScheduler):  # type: ignore[misc]
    """For engines that compose the next step while one runs, which is vLLM's default."""
