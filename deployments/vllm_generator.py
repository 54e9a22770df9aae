"""Generates with vLLM's engine client, one callback per output instead of one task per stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments import wire
from deployments.streams import Abort, Put
from weir.errors import BadRequestError, OverloadedError

_OVERRIDABLE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


class VllmGenerator:
    """``load`` says what the engine last reported of itself."""

    def __init__(self, client: AsyncLLM, load: Callable[[], wire.Load]) -> None:
        self._client = client
        self._defaults: dict[str, Any] = client.model_config.get_diff_sampling_param()
        self.load = load

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """Add the request to the engine.

        Raises:
            BadRequestError: vLLM refuses the prompt or the parameters.
            OverloadedError: the engine is down.
        """
        try:
            collector = await self._client.add_request(
                request.request_id,
                tokens_input(request.prompt, cache_salt=request.cache_salt),
                sampling_params(request.sampling, self._defaults, request.logprobs),
                priority=request.priority,
            )
        except (ValueError, VLLMClientError) as error:
            raise BadRequestError(str(error)) from error
        except EngineDeadError as error:
            raise OverloadedError(str(error) or "The engine is down.") from error
        outputs = _Outputs(request.stream, len(request.prompt), put, request.logprobs)
        early = collector.get_nowait()
        # vLLM hands outputs over by put(); taking the call itself saves a task per stream and a
        # wake-up per token.
        collector.put = outputs.take
        if early is not None:
            outputs.take(early)
        engine_id = collector.request_id

        async def abort() -> None:
            if not outputs.ended:
                await self._client.abort(engine_id, internal=True)

        return abort


class _Outputs:
    """Turns vLLM's outputs of one request into messages, and keeps its counts."""

    __slots__ = ("_cached", "_count", "_number", "_prompt", "_put", "_scored", "ended")

    def __init__(self, number: int, prompt_tokens: int, put: Put, scored: bool) -> None:
        self._number = number
        self._prompt = prompt_tokens
        self._put = put
        self._scored = scored
        self._cached = 0
        self._count = 0
        self.ended = False

    def take(self, output: Any) -> None:
        """Called by vLLM for each output of the request, or with the exception that ended it."""
        if isinstance(output, Exception):
            self.ended = True
            reason = str(output) or type(output).__name__
            self._put(wire.Failed(self._number, OverloadedError.status, reason))
            return
        completion = output.outputs[0] if output.outputs else None
        text = completion.text if completion else ""
        tokens = list(completion.token_ids) if completion else []
        self._count += len(tokens)
        if output.num_cached_tokens:
            self._cached = output.num_cached_tokens
        if not output.finished:
            if self._scored:
                chosen = _chosen_logprobs(completion)
                self._put(wire.ScoredChunk(self._number, text, tokens, chosen))
            else:
                self._put(wire.Chunk(self._number, text, tokens))
            return
        self.ended = True
        reason = (completion.finish_reason if completion else None) or "abort"
        counts = (self._prompt, self._cached, self._count)
        if self._scored:
            chosen = _chosen_logprobs(completion)
            self._put(wire.ScoredDone(self._number, text, tokens, reason, *counts, chosen))
        else:
            self._put(wire.Done(self._number, text, tokens, reason, *counts))


def _chosen_logprobs(completion: Any) -> list[float]:
    """Of the tokens that were chosen; vLLM gives a mapping from token id per position."""
    if completion is None or not completion.logprobs:
        return []
    pairs = zip(completion.token_ids, completion.logprobs, strict=False)
    return [float(position[token].logprob) for token, position in pairs]


def sampling_params(
    sampling: wire.Sampling, defaults: dict[str, Any], logprobs: bool = False
) -> SamplingParams:
    """vLLM's parameters: what the request says, else the model's own defaults."""
    chosen = {name: defaults[name] for name in _OVERRIDABLE if name in defaults}
    chosen |= {
        name: value for name in _OVERRIDABLE if (value := getattr(sampling, name)) is not None
    }
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        seed=sampling.seed,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        skip_special_tokens=sampling.skip_special_tokens,
        include_stop_str_in_output=sampling.include_stop_str_in_output,
        output_kind=RequestOutputKind.DELTA,
        logprobs=0 if logprobs else None,  # 0: that of the chosen token only
        skip_clone=True,
        **chosen,
    )
