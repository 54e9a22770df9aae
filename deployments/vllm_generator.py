"""Generates with vLLM's engine client, one callback per output instead of one task per stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vllm import PoolingParams, SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments import wire
from deployments.adapters import AdapterSlots
from deployments.chats import ChatFormat, ChatReader
from deployments.engine_tracing import trace_headers
from deployments.grammar_helper import GrammarHelper, grammar_backend
from deployments.grammar_trial import GrammarTrial, TrialLimits
from deployments.outputs import (
    Embedding,
    KeptOutputs,
    Outputs,
    RichOutputs,
    Wanted,
    fresh_params,
)
from deployments.pairs import scores_pairs
from deployments.resuming import RESUMED
from deployments.seams import Delivered, Replay, TakingUp, replay
from deployments.streams import Abort, CannotDoError, Put
from deployments.token_texts import TokenTexts
from weir.errors import BadRequestError, NotFoundError, OverloadedError

_OVERRIDABLE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)
_FEW_TOOLS = 32
_SMALL_FORM_BYTES = 4096
_REFUSALS = (ValueError, VLLMClientError)


class VllmGenerator:
    """``load`` says what the engine last reported of itself, ``slots`` loads LoRA adapters (None:
    the engine takes none), ``resumes`` says whether the engine's scheduler continues streams.
    ``grammars`` tries what the engine would compile (None: it is forked at the first trial).
    ``epoch_s``: seconds since the epoch, as the other replicas of a model have them: blocks that
    are handed over are good for a while only."""

    def __init__(
        self,
        client: AsyncLLM,
        load: Callable[[], wire.Load],
        *,
        chats: ChatFormat | None = None,
        slots: AdapterSlots | None = None,
        resumes: bool = False,
        grammars: GrammarHelper | None = None,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        self._epoch_s = epoch_s
        self._client = client
        helper = grammars or GrammarHelper(partial(grammar_backend, client.vllm_config))
        self._grammars = GrammarTrial(helper.try_grammar, TrialLimits(helper.bounds))
        self._defaults: dict[str, Any] = client.model_config.get_diff_sampling_param()
        self._chats = chats or ChatFormat(client)
        self._slots = slots
        self._resumes = resumes
        self._taking_up = TakingUp(client.output_processor)
        self._ending: set[asyncio.Task[None]] = set()
        self.load = load

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """Add the request to the engine.

        Raises:
            BadRequestError: vLLM refuses the prompt or the parameters.
            CannotDoError: the model cannot generate, or its engine not continue a stream.
            OverloadedError: the engine is down.
        """
        try:
            if request.adapter is not None:
                return await self._submit_adapted(request, request.adapter, put)
            return await self._submit_any(request, put, None)
        except _REFUSALS as error:
            if "generate" not in await self._client.get_supported_tasks():
                raise CannotDoError("This model embeds text; it generates none.") from error
            raise BadRequestError(str(error)) from error
        except EngineDeadError as error:
            raise OverloadedError(str(error) or "The engine is down.") from error

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """Have the engine embed a prompt, or score a pair. Raises as :meth:`submit`."""
        try:
            collector = await self._client.add_request(
                request.request_id,
                tokens_input(request.prompt, cache_salt=request.cache_salt),
                self._pooling(request, await self._client.get_supported_tasks()),
                priority=request.priority,
                **trace_headers(request.trace),
            )
        except _REFUSALS as error:
            raise BadRequestError(str(error)) from error
        except EngineDeadError as error:
            raise OverloadedError(str(error) or "The engine is down.") from error
        return self._listen(collector, Embedding(request.stream, len(request.prompt), put))

    def _pooling(self, request: wire.Embed, tasks: Sequence[str]) -> PoolingParams:
        """vLLM's parameters."""
        pair = request.pair
        if pair is None:
            if "embed" not in tasks:
                raise CannotDoError("This model has no embeddings.")
            return PoolingParams(task="embed", dimensions=request.dimensions)
        if not scores_pairs(self._client.model_config, tasks):
            raise CannotDoError("This model does not score pairs of texts.")
        # A model whose tokenizer has one type of token takes no types.
        typed = "token_type_ids" in self._chats.tokenizer.model_input_names
        types = {"compressed_token_type_ids": pair.second} if typed and pair.second else None
        return PoolingParams(task="classify", use_activation=pair.activate, extra_kwargs=types)

    def adapters(self) -> wire.Adapters | None:
        """Which are loaded."""
        return self._slots.told() if self._slots is not None else None

    async def _submit_any(self, request: wire.Submit, put: Put, lora: Any | None) -> Abort:
        if _is_plain(request):
            return await self._submit_plain(request, put, lora)
        return await self._submit_rich(request, put, lora)

    async def _submit_adapted(self, request: wire.Submit, adapter: wire.Adapter, put: Put) -> Abort:
        """With its adapter in a slot until the last output, or until it is aborted."""
        slots = self._slots
        if slots is None:
            raise NotFoundError(f"The model has no adapter {adapter.key!r}.")
        lora = await slots.hold(adapter)
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                slots.release(adapter.key)

        def put_and_release(message: wire.OfStream) -> None:
            if isinstance(message, wire.Done | wire.Failed):
                release()
            put(message)

        try:
            abort = await self._submit_any(request, put_and_release, lora)
        except BaseException:
            release()
            raise

        async def abort_and_release() -> None:
            try:
                await abort()
            finally:
                release()

        return abort_and_release

    async def _submit_plain(self, request: wire.Submit, put: Put, lora: Any | None) -> Abort:
        more = {} if request.handoff is None else {"extra_args": self._extra_args(request)}
        collector = await self._client.add_request(
            request.request_id,
            tokens_input(request.prompt, cache_salt=request.cache_salt),
            sampling_params(request.sampling, self._defaults, **more),
            lora_request=lora,
            priority=request.priority,
            **trace_headers(request.trace),
        )
        told = (request.stream, len(request.prompt), put)
        keeps = isinstance(request.handoff, wire.Keep)
        outputs = KeptOutputs(*told, self._epoch_s) if keeps else Outputs(*told)
        return self._listen(collector, outputs)

    async def _submit_rich(self, request: wire.Submit, put: Put, lora: Any | None) -> Abort:
        prompt, reader, params = await self._read(request)
        built = await self._build(request, prompt, reader, params, lora)
        ids = built.prompt_token_ids
        wanted = Wanted(request.logprobs, request.prompt_logprobs, self._chats.tokenizer.decode)
        outputs = RichOutputs(request.stream, ids, put, wanted, reader, rich=_is_rich(request))
        replayed = None
        if request.resume is not None and request.resume.tokens:
            replayed = await self._replay(request.resume, built, reader, outputs)
            if replayed.finish_reason is not None:
                outputs.end(replayed.new, replayed.finish_reason, replayed.stop_reason)
                return _nothing
        with self._taking_up.of(built.request_id, replayed):
            collector = await self._client.add_request(
                built.request_id, built, params, priority=request.priority
            )
        if replayed is not None:
            outputs.begin(replayed.new)
        engine_id = collector.request_id
        outputs.broken = lambda: self._end_soon(engine_id)
        return self._listen(collector, outputs)

    async def _read(self, request: wire.Submit) -> tuple[Any, ChatReader | None, SamplingParams]:
        """Prompt, reader and vLLM's parameters of a request that is more than plain text."""
        prompt, reader, sampling = None, None, request.sampling
        if request.messages is not None:
            prompt, reader = await self._chats.render(
                request.messages, sampling.skip_special_tokens
            )
            if request.cache_salt:
                prompt["cache_salt"] = request.cache_salt
        else:
            prompt = tokens_input(request.prompt, cache_salt=request.cache_salt)
            if request.chat is not None:
                asked = (request.chat, sampling.skip_special_tokens, request.unparsed)
                if _is_large(request.chat):
                    reader = await asyncio.to_thread(self._chats.read, *asked)
                else:
                    reader = self._chats.read(*asked)
        more: dict[str, Any] = {"logprobs": request.logprobs}
        if request.messages is not None:
            left = self._client.model_config.max_model_len - len(prompt["prompt_token_ids"])
            more["max_tokens"] = min(sampling.max_tokens, max(1, left))
        if reader is not None:
            more["skip_special_tokens"] = reader.skip_special_tokens
            more["structured_outputs"] = reader.structured_outputs
        if request.resume is not None and request.resume.tokens:
            if not self._resumes:
                raise CannotDoError("This model's engine cannot continue another one's stream.")
        else:  # told with the first output, which a resumed stream has had
            more["prompt_logprobs"] = request.prompt_logprobs
        more["extra_args"] = self._extra_args(request)
        params = sampling_params(sampling, self._defaults, **more)
        return prompt, reader, params

    async def _build(
        self,
        request: wire.Submit,
        prompt: Any,
        reader: ChatReader | None,
        params: SamplingParams,
        lora: Any | None,
    ) -> Any:
        """vLLM's own request. A grammar is checked in another thread than the one that streams."""
        inputs = self._client.input_processor
        args = (request.request_id, prompt, params, await self._client.get_supported_tasks())
        kwargs = {
            "lora_request": lora,
            "priority": request.priority,
            **trace_headers(request.trace),
        }
        if params.structured_outputs is None:
            built = inputs.process_inputs(*args, **kwargs)
        else:
            await self._grammars.check(params, _sender(request))
            try:
                built = await inputs.process_inputs_async(*args, **kwargs)
            except RuntimeError as error:  # a RecursionError, too
                raise BadRequestError(f"The grammar cannot be compiled: {error}") from error
        if reader is not None:
            ended, reasoning_kwargs = reader.reasoning(built.prompt_token_ids)
            built.reasoning_ended = ended
            built.reasoning_parser_kwargs = reasoning_kwargs
            if reader.parser is not None:
                ids = built.prompt_token_ids
                reader.begin(TokenTexts(self._chats.tokenizer, ids, built.sampling_params))
        return built

    async def _replay(
        self, resume: wire.Resume, built: Any, reader: ChatReader | None, outputs: RichOutputs
    ) -> Replay:
        outputs.delivered = delivered = Delivered(resume)
        if reader is not None:
            reader.resume(resume)
        limit = self._client.model_config.max_model_len
        tokenizer = self._chats.tokenizer
        return await asyncio.to_thread(replay, tokenizer, built, resume, delivered, reader, limit)

    def _listen(self, collector: Any, outputs: Any) -> Abort:
        # vLLM hands outputs over by put(); taking the call itself saves a task per stream and a
        # wake-up per token.
        early = collector.get_nowait()
        collector.put = outputs.take
        if early is not None:
            outputs.take(early)
        engine_id = collector.request_id

        async def abort() -> None:
            if not outputs.ended:
                await self._client.abort(engine_id, internal=True)

        return abort

    def _extra_args(self, request: wire.Submit) -> dict[str, Any] | None:
        """What travels to the engine core beside the sampling parameters."""
        extra: dict[str, Any] = {}
        if request.resume is not None and request.resume.tokens:
            extra[RESUMED] = request.resume.tokens
        if isinstance(request.handoff, wire.Keep):
            extra["kv_transfer_params"] = {"do_remote_decode": True, "do_remote_prefill": False}
        elif request.handoff is not None:
            params = fresh_params(request.handoff.blocks, self._epoch_s(), self._fresh_s())
            if params is not None:
                extra["kv_transfer_params"] = params
        return extra or None

    def _fresh_s(self) -> float:
        """So long after they were kept, another replica's blocks may be fetched: half of the lease
        that it keeps them for."""
        config = self._client.vllm_config.kv_transfer_config
        if config is None:
            return 0.0
        return 0.5 * float(config.get_from_extra_config("kv_lease_duration", 30.0))

    def _end_soon(self, engine_id: str) -> None:
        ending = self._client.abort(engine_id, internal=True)
        task = asyncio.get_running_loop().create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _nothing() -> None:
    """Ends what has ended."""


def _sender(request: wire.Submit) -> str:
    """Whose request it is, where the gateway says so; else the salt, of which a tenant may have
    several."""
    return request.origin.tenant if request.origin is not None else request.cache_salt or ""


def _is_large(chat: dict[str, Any]) -> bool:
    """Whether it takes milliseconds to check."""
    forms = [chat.get("response_format"), chat.get("structured_outputs")]
    return len(chat.get("tools") or ()) > _FEW_TOOLS or len(json.dumps(forms)) > _SMALL_FORM_BYTES


def _is_rich(request: wire.Submit) -> bool:
    """Whether its outputs carry more than text."""
    asked = (request.chat, request.messages, request.logprobs, request.prompt_logprobs)
    return any(field is not None for field in asked)


def _is_plain(request: wire.Submit) -> bool:
    return not _is_rich(request) and request.resume is None


def _repetition(wanted: wire.Repetition | None) -> RepetitionDetectionParams | None:
    if wanted is None:
        return None
    return RepetitionDetectionParams(
        wanted.max_pattern_size, wanted.min_pattern_size, wanted.min_count
    )


def sampling_params(
    sampling: wire.Sampling, defaults: dict[str, Any], **more: Any
) -> SamplingParams:
    """vLLM's parameters: what the request says, else the model's own defaults. ``more`` goes to
    the constructor, which derives from some that the prefix cache must not be read."""
    chosen = {name: defaults[name] for name in _OVERRIDABLE if name in defaults}
    chosen |= {
        name: value for name in _OVERRIDABLE if (value := getattr(sampling, name)) is not None
    }
    bias = sampling.logit_bias
    stops = [*(sampling.stop_token_ids or ()), *(defaults.get("stop_token_ids") or ())]
    given = {
        "max_tokens": sampling.max_tokens,
        "min_tokens": sampling.min_tokens,
        "seed": sampling.seed,
        "stop": sampling.stop,
        "stop_token_ids": stops or None,
        "ignore_eos": sampling.ignore_eos,
        "skip_special_tokens": sampling.skip_special_tokens,
        "include_stop_str_in_output": sampling.include_stop_str_in_output,
        # OpenAI's bounds, as vLLM's own servers apply them.
        "logit_bias": bias and {i: min(100.0, max(-100.0, b)) for i, b in bias.items()},
        "bad_words": sampling.bad_words,
        "allowed_token_ids": sampling.allowed_token_ids,
        "spaces_between_special_tokens": sampling.spaces_between_special_tokens,
        "thinking_token_budget": sampling.thinking_token_budget,
        "repetition_detection": _repetition(sampling.repetition_detection),
        "output_kind": RequestOutputKind.DELTA,
        "skip_clone": True,
    }
    return SamplingParams(**(given | chosen | more))
