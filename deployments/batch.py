"""Writers for offline generation: an engine of its own, or the running platform at batch priority.

:mod:`features.generation` asks for them; nothing is started before one is called.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deployments.sources import model_source
from features.generation import OUTPUT_SCHEMA, ModelIdentity, Prompt, WriterError, Written
from features.generation.output import MAX_OUTPUT_TOKENS
from weir.settings import ModelSettings

BATCH_CLASS = "batch"
_MARGIN_TOKENS = 32
"""What a chat template adds around two messages, at most."""
_ATTEMPTS = 20
_ENGINE_ENV = {
    # One process: it is the worker, and on a CPU a second one costs seconds and memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def checkpoint_sha256(source: str) -> str:
    """A hash of a model's files; of a Hub id only ``hub:ID``, its files are vLLM's to fetch."""
    folder = Path(model_source(source))
    if not folder.is_dir():
        return f"hub:{source}"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".bin", ".model"):
            digest.update(f"{file.name}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class EngineWriters:
    """A vLLM engine in each worker, with the settings of a served model."""

    model: ModelSettings

    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.model.name, checkpoint_sha256(self.model.source))

    def gpus(self) -> int:
        parallel = self.model.parallel
        return parallel.tensor * parallel.pipeline if self.model.accelerator else 0

    def __call__(self) -> EngineWriter:
        return EngineWriter(self.model)


class EngineWriter:
    """vLLM's engine, stepped by hand, so that each answer is handed on when it is finished."""

    def __init__(self, model: ModelSettings) -> None:
        for name, value in (_ENGINE_ENV | model.engine.env).items():
            os.environ.setdefault(name, value)
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        known = {each.name for each in dataclasses.fields(EngineArgs)}
        # Served models have arguments of vLLM's server among them (tool parsers).
        args = {name: value for name, value in model.engine.args.items() if name in known}
        args["structured_outputs_config"] = {"backend": "xgrammar", "disable_any_whitespace": True}
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=model_source(model.source),
                tensor_parallel_size=model.parallel.tensor,
                pipeline_parallel_size=model.parallel.pipeline,
                disable_log_stats=True,
                **args,
            )
        )
        self._tokenizer = self._engine.get_tokenizer()

    def bound(self, prompt: Prompt) -> int:
        return len(self._tokens(prompt)) + MAX_OUTPUT_TOKENS

    def write(self, prompts: Sequence[Prompt], done: Callable[[int, Written], None]) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        for number, prompt in enumerate(prompts):
            params = SamplingParams(
                temperature=0.0,
                max_tokens=MAX_OUTPUT_TOKENS,
                structured_outputs=StructuredOutputsParams(json=OUTPUT_SCHEMA),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(str(number), tokens_input(self._tokens(prompt)), params)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    answer = output.outputs[0]
                    counts = (len(output.prompt_token_ids), len(answer.token_ids))
                    done(int(output.request_id.partition("-")[0]), Written(answer.text, *counts))

    def _tokens(self, prompt: Prompt) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            prompt.messages(), tokenize=False, add_generation_prompt=True
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True, slots=True)
class PlatformWriters:
    """The running platform: its replicas, its admission, as a tenant of the lowest class."""

    url: str
    key: str = field(repr=False)
    model: str
    checkpoint: str
    concurrency: int = 8
    priority_class: str = BATCH_CLASS

    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.model, self.checkpoint)

    def gpus(self) -> int:
        return 0

    def __call__(self) -> PlatformWriter:
        return PlatformWriter(self)


class PlatformWriter:
    """Chat completions over HTTP. Refusals that say when to come back are waited for."""

    def __init__(self, writers: PlatformWriters) -> None:
        self._writers = writers

    def bound(self, prompt: Prompt) -> int:
        # No token is shorter than a byte, and the tokenizer is at the other end.
        size = len(prompt.system.encode()) + len(prompt.user.encode())
        return size + _MARGIN_TOKENS + MAX_OUTPUT_TOKENS

    def write(self, prompts: Sequence[Prompt], done: Callable[[int, Written], None]) -> None:
        asyncio.run(self.write_async(prompts, done))

    async def write_async(
        self, prompts: Sequence[Prompt], done: Callable[[int, Written], None]
    ) -> None:
        """The same within a running event loop; cancelling it cancels the requests."""
        writers = self._writers
        headers = {
            "authorization": f"Bearer {writers.key}",
            "x-weir-priority": writers.priority_class,
        }
        places = asyncio.Semaphore(writers.concurrency)

        async def one(number: int, prompt: Prompt) -> None:
            async with places:
                done(number, await self._ask(client, prompt))

        async with httpx.AsyncClient(base_url=writers.url, headers=headers, timeout=600) as client:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for number, prompt in enumerate(prompts):
                        tasks.create_task(one(number, prompt))
            except* WriterError as errors:
                raise errors.exceptions[0] from None

    async def _ask(self, client: httpx.AsyncClient, prompt: Prompt) -> Written:
        schema = {"name": "features", "schema": OUTPUT_SCHEMA, "strict": True}
        body = {
            "model": self._writers.model,
            "messages": prompt.messages(),
            "temperature": 0,
            "max_tokens": MAX_OUTPUT_TOKENS,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        for _ in range(_ATTEMPTS):
            try:
                response = await client.post("/v1/chat/completions", json=body)
            except httpx.HTTPError as error:
                raise WriterError(f"{self._writers.url} does not answer: {error!r}") from error
            if response.status_code not in (429, 503):
                break
            await asyncio.sleep(float(response.headers.get("retry-after", "1")))
        if response.status_code != 200:
            raise WriterError(f"{self._writers.url}: {response.status_code} {response.text[:300]}")
        return _written(response.json())


def _written(answer: Mapping[str, Any]) -> Written:
    try:
        text = answer["choices"][0]["message"]["content"] or ""
        usage = answer["usage"]
        return Written(text, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    except (KeyError, IndexError, TypeError, ValueError):
        shown = json.dumps(answer)[:300]
        raise WriterError(f"not a chat completion with usage: {shown}") from None
