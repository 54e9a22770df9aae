"""How much of an engine's time each request takes: measured in the engine core, step by step.

A step's duration is shared among its requests by the tokens that it computes for each: a prompt's
chunk of 500 tokens beside 12 sequences that generate takes 500 of 512 parts. It is no more than
that: that a token far into a context costs more attention than an early one, and that a step costs
something however few tokens it has, is shared by all of them alike.

What a request has taken travels with its first and its last output (and with each one of a request
that has stop strings, which vLLM's front end ends without the core), in the one field that vLLM
hands through from the scheduler to its client: ``kv_transfer_params``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

#: Seconds of prefill, seconds of decode.
Work = tuple[float, float]
_WORK = "weir_work"


def told_work(params: dict[str, Any]) -> Work | None:
    """What the engine core has put into an output's ``kv_transfer_params``; taken out of them."""
    told = params.pop(_WORK, None)
    return None if told is None else (told[0], told[1])


class StepClock:
    """How long each step took. Steps are composed ahead of time where scheduling is asynchronous:
    one begins when it has been composed and the one before it has ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._composed_s: dict[int, float] = {}
        self._ended_s = 0.0
        self.busy_s = 0.0

    def composed(self, step: int) -> None:
        """A step has been handed to the device."""
        self._composed_s[step] = self._clock()

    def ended(self, step: int) -> float:
        """A step's results are here; its duration in seconds."""
        now_s = self._clock()
        took_s = max(0.0, now_s - max(self._composed_s.pop(step, now_s), self._ended_s))
        self._ended_s = now_s
        self.busy_s += took_s
        return took_s


class Shares:
    """What each request has taken so far, in seconds: ``prefill`` and ``decode``, by its id."""

    def __init__(self) -> None:
        self.prefill: dict[str, float] = {}
        self.decode: dict[str, float] = {}

    def add(self, each_s: float, tokens: Mapping[str, int], prefilling: Container[str]) -> None:
        """A step of so many ``tokens`` for each request, ``each_s`` seconds a token; those
        ``prefilling`` had a part of their prompt in it."""
        decode = self.decode
        for request, count in tokens.items():
            kind = self.prefill if request in prefilling else decode
            kind[request] = kind.get(request, 0.0) + each_s * count

    def of(self, request: str) -> Work | None:
        """What it has taken; None where nothing is known of it."""
        prefill, decode = self.prefill.get(request), self.decode.get(request)
        return None if prefill is decode is None else (prefill or 0.0, decode or 0.0)

    def forget(self, request: str) -> None:
        """It has ended."""
        self.prefill.pop(request, None)
        self.decode.pop(request, None)


class Working(Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, which measures as the module's docstring says. Its interface carries no
    promise; ``tests/deployments/test_working_engine.py`` runs one in a real engine."""

    requests: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step_clock = StepClock()
        self._shares = Shares()
        self._prefilling: dict[int, frozenset[str]] = {}

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; see the base class."""
        output = super().schedule(*args, **kwargs)
        if output.total_num_scheduled_tokens:
            step = id(output)
            self._prefilling[step] = frozenset(
                request
                for request, count in output.num_scheduled_tokens.items()
                if self._prefills(request, count)
            )
            self._step_clock.composed(step)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """A step's results; see the base class."""
        step = id(scheduler_output)
        if step in self._prefilling:
            each_s = self._step_clock.ended(step) / scheduler_output.total_num_scheduled_tokens
            tokens = self._of_the_living(scheduler_output.num_scheduled_tokens)
            self._shares.add(each_s, tokens, self._prefilling.pop(step))
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)
        for per_client in outputs.values():
            for output in per_client.outputs:
                self._tell(output)
        return outputs

    def finish_requests(self, *args: Any, **kwargs: Any) -> Any:
        """Requests that are broken off; see the base class."""
        ended = super().finish_requests(*args, **kwargs)
        for request in ended or ():
            self._shares.forget(request.request_id)
        return ended

    def _of_the_living(self, tokens: Mapping[str, int]) -> dict[str, int]:
        """Without requests that were broken off while the step ran: nobody can be told of them."""
        known = self.requests
        return {
            request: count
            for request, count in tokens.items()
            if (own := known.get(request)) is not None and not own.is_finished()
        }

    def _prefills(self, request_id: str, count: int) -> bool:
        """Whether a part of its prompt is in the step that has just been composed."""
        request = self.requests[request_id]
        return bool(request.num_computed_tokens - count < request.num_prompt_tokens)

    def _tell(self, output: Any) -> None:
        ended = output.finish_reason is not None
        if not ended and output.prefill_stats is None and not self._may_stop(output.request_id):
            return
        work = self._shares.of(output.request_id)
        if work is not None:
            given = output.kv_transfer_params or {}
            output.kv_transfer_params = {**given, _WORK: work}
        if ended:
            self._shares.forget(output.request_id)

    def _may_stop(self, request_id: str) -> bool:
        """Whether vLLM's front end may end it."""
        request = self.requests.get(request_id)
        params = request.sampling_params if request is not None else None
        return params is not None and bool(params.stop)
