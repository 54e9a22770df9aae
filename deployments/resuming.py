"""Streams that another replica began go on in this engine: vLLM's scheduler, extended.

The ids generated so far come with the request. Here they become its *output* before it is first
scheduled, which is what a request looks like that vLLM preempted and takes up again: penalties,
``min_tokens``, ``max_tokens`` and bad words count them as output, and a grammar is brought to where
it was by taking them in. vLLM's V2 model runner accepts such a request; the V1 runner (every CPU
engine's) knows preempted requests from before only, so :class:`ResumingWorker` has it take the
output of a new one.

vLLM's schedulers and runners are underneath, whose interface carries no promise;
``tests/deployments/test_resuming.py`` runs them in a real engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.metrics.stats import PrefillStats
from vllm.v1.request import RequestStatus

from deployments.working import Working

#: Under this name in ``SamplingParams.extra_args`` the ids travel to the engine core.
RESUMED = "weir_resumed"


def let_resume(config: Any) -> bool:
    """Have the engine of a ``VllmConfig`` continue streams; False (and nothing changed) where the
    settings have given it a scheduler or a worker extension of their own."""
    scheduling, parallel = config.scheduler_config, config.parallel_config
    chosen = scheduling.scheduler_cls
    if parallel.worker_extension_cls or (chosen is not None and not _ours(chosen)):
        return False
    if chosen is None:
        kind = ResumingAsyncScheduler if scheduling.async_scheduling else ResumingScheduler
        scheduling.scheduler_cls = f"{kind.__module__}.{kind.__qualname__}"
    extension = ResumingWorker
    parallel.worker_extension_cls = f"{extension.__module__}.{extension.__qualname__}"
    return True


async def prepare_workers(client: Any) -> None:
    """Once, after the start of an engine that :func:`let_resume` has configured."""
    await client.collective_rpc("take_resumed")


def _ours(scheduler: Any) -> bool:
    return isinstance(scheduler, str) and scheduler.startswith("deployments.")


def resumed_ids(request: Any) -> list[int]:
    """The ids that an earlier replica generated for a vLLM ``Request``."""
    params = request.sampling_params
    extra = params.extra_args if params is not None else None
    return list(extra.get(RESUMED, ())) if extra else []


class Resuming(Working):
    """See the module's docstring."""

    grammar_compile_error_reqs: set[str]
    structured_output_manager: Any

    def add_request(self, request: Any) -> None:
        """Queue a request; see the base class."""
        if resumed := resumed_ids(request):
            request.append_output_token_ids(resumed)
            # vLLM's own statistics assert that at most the prompt is cached: set below.
            request.prefill_stats = None
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; see the base class."""
        output = super().schedule(*args, **kwargs)
        for data in output.scheduled_new_reqs:
            request = self.requests[data.req_id]
            if resumed_ids(request) and not request.num_preemptions:
                data.prefill_token_ids = list(request.all_token_ids)
                prompt = request.num_prompt_tokens
                request.prefill_stats = PrefillStats()
                request.prefill_stats.set(prompt, min(data.num_computed_tokens, prompt), 0)
        return output

    def _try_promote_blocked_waiting_request(self, request: Any) -> bool:
        """Once the grammar has been compiled, the resumed output moves it on."""
        status = request.status
        if not super()._try_promote_blocked_waiting_request(request):
            return False
        compiled = status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        if compiled and not self._bring_grammar_forward(request):
            self.grammar_compile_error_reqs.add(request.request_id)
            request.status = status
            return False
        return True

    def _bring_grammar_forward(self, request: Any) -> bool:
        """False where the grammar rejects what was generated."""
        resumed = resumed_ids(request)
        if not resumed:
            return True
        structured = request.structured_output_request
        begins = self._grammar_begins(request, structured, resumed)
        if begins == len(resumed):
            return True
        accepted: bool = structured.grammar.accept_tokens(request.request_id, resumed[begins:])
        return accepted

    def _grammar_begins(self, request: Any, structured: Any, resumed: Sequence[int]) -> int:
        """The first resumed token that the grammar governs: the one behind the reasoning."""
        manager = self.structured_output_manager
        if manager.enable_in_reasoning or structured.reasoning_ended:
            return 0
        reasoner = manager._get_reasoner(request)
        if reasoner is None:
            return 0
        seen = list(request.prompt_token_ids or ())
        if structured.reasoning_ended is None and reasoner.is_reasoning_end(seen):
            structured.reasoning_ended = True
            return 0
        for number, token in enumerate(resumed):
            seen.append(token)
            if reasoner.is_reasoning_end_streaming(seen, [token]):
                structured.reasoning_ended = True
                structured.reasoning_end_token_index = len(seen) - 1
                return number + 1
        return len(resumed)


class ResumingScheduler(Resuming):
    """For engines that wait for each step's tokens."""


class ResumingAsyncScheduler(Resuming, AsyncScheduler):  # type: ignore[misc]
    """For engines that compose the next step while one runs, which is vLLM's default."""


class ResumingWorker:
    """What vLLM mixes into its worker class (``worker_extension_cls``)."""

    model_runner: Any
    use_v2_model_runner: bool

    def take_resumed(self) -> None:
        """Have a V1 model runner take the output that a new request comes with."""
        if not self.use_v2_model_runner:
            _extend(self.model_runner)


def _extend(runner: Any) -> None:
    update = runner._update_states

    def update_states(scheduler_output: Any) -> Any:
        resumed = {
            data.req_id: data.prefill_token_ids[len(data.prompt_token_ids) :]
            for data in scheduler_output.scheduled_new_reqs
            if data.prefill_token_ids and data.prompt_token_ids
        }
        if not resumed:
            return update(scheduler_output)
        batch = runner.input_batch
        add = batch.add_request

        def add_request(request: Any) -> Any:
            request.output_token_ids.extend(resumed.pop(request.req_id, ()))
            return add(request)

        batch.add_request = add_request
        try:
            return update(scheduler_output)
        finally:
            del batch.add_request

    runner._update_states = update_states
