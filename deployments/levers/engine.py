"""A small engine in this process, and the same questions for each."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

# What the teacher was trained on, so that its answers differ from prompt to prompt.
_QUESTIONS = (
    "Where is my order {n}?",
    "I want to return item {n}, what do I have to do?",
    "My parcel {n} arrived damaged.",
    "Please cancel order {n} and refund me.",
)


@dataclass(frozen=True, slots=True)
class Timed:
    """Answers as token ids, and the seconds that all of them took together."""

    answers: list[list[int]]
    seconds: float


@dataclass(slots=True)
class Seen:
    """One request in a step-by-step run: steps and seconds until its first and last token."""

    first_step: int = -1
    last_step: int = -1
    first_s: float = 0.0


class Engine:
    """vLLM in this process. ``arguments`` are engine arguments over small defaults."""

    def __init__(self, model: str, **arguments: Any) -> None:
        from vllm import LLM

        defaults: dict[str, Any] = {
            "dtype": "float32",
            "max_model_len": 2048,
            "block_size": 32,
            "max_num_seqs": 32,
            "max_num_batched_tokens": 2048,
            "kv_cache_memory_bytes": 64 << 20,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "disable_log_stats": True,
            "seed": 0,
        }
        self.llm = LLM(model=model, **(defaults | arguments))
        self.vocabulary = self.llm.get_tokenizer().get_vocab()

    @property
    def kv_blocks(self) -> int:
        """Blocks that the engine allocated."""
        return int(self.llm.llm_engine.vllm_config.cache_config.num_gpu_blocks or 0)

    def ids(self, text: str) -> list[int]:
        """The token ids of ``text``."""
        return list(self.llm.get_tokenizer().encode(text))

    def answer(self, prompts: Sequence[list[int]], tokens: int, **sampling: Any) -> Timed:
        """Greedy answers of exactly ``tokens`` tokens unless ``sampling`` says otherwise."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        given: dict[str, Any] = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}
        params = SamplingParams(**(given | sampling))
        asked = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        begun_s = time.perf_counter()
        outputs = self.llm.generate(asked, params, use_tqdm=False)
        seconds = time.perf_counter() - begun_s
        return Timed([list(output.outputs[0].token_ids) for output in outputs], seconds)

    def timed(self, ask: Callable[[], Timed], runs: int) -> Timed:
        """The answers of one run, and the median of the seconds of ``runs`` after a first one."""
        first = ask()
        seconds = statistics.median(ask().seconds for _ in range(runs))
        return Timed(first.answers, seconds)

    def step_through(
        self, arrivals: Sequence[tuple[int, str, list[int], int, int]]
    ) -> tuple[dict[str, Seen], list[float]]:
        """Run step by step. ``arrivals``: (step, name, prompt, tokens, priority), by step.

        Returns what was seen of each request, and the seconds of each step.
        """
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        engine = self.llm.llm_engine
        seen = {name: Seen() for _, name, *_ in arrivals}
        waiting, spent_s = list(arrivals), 0.0
        steps_s: list[float] = []
        while waiting or engine.has_unfinished_requests():
            while waiting and waiting[0][0] <= len(steps_s):
                _, name, prompt, tokens, priority = waiting.pop(0)
                params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
                asked = TokensPrompt(prompt_token_ids=prompt)
                engine.add_request(name, asked, params, priority=priority)
            begun_s = time.perf_counter()
            outputs = engine.step()
            steps_s.append(time.perf_counter() - begun_s)
            spent_s += steps_s[-1]
            for output in outputs:
                request = seen[output.request_id.partition("@")[0]]
                if request.first_step < 0 and output.outputs and output.outputs[0].token_ids:
                    request.first_step, request.first_s = len(steps_s), spent_s
                if output.finished:
                    request.last_step = len(steps_s)
        return seen, steps_s

    def close(self) -> None:
        """Free it, so that another can be built in the same process."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()


@dataclass(frozen=True, slots=True)
class Bench:
    """The model that the levers are tried on, and the smaller one of the same tokenizer. ``runs``:
    so often each question is timed, after a first time that is not."""

    model: str
    draft: str
    runs: int = 3

    def prompts(self, engine: Engine, count: int, tokens: int = 0) -> list[list[int]]:
        """Different prompts; with ``tokens``, of that length."""
        made = []
        for n in range(count):
            text = _QUESTIONS[n % len(_QUESTIONS)].format(n=1000 + 37 * n)
            ids = engine.ids(text)
            made.append((ids * (tokens // len(ids) + 1))[:tokens] if tokens else ids)
        return made

    def compare(
        self, ask: Callable[[Engine], Timed], without: dict[str, Any], with_it: dict[str, Any]
    ) -> tuple[Timed, Timed]:
        """The same questions to an engine without the lever, then to one with it."""
        both = []
        for arguments in (without, with_it):
            engine = Engine(**{"model": self.model, **arguments})
            try:
                both.append(engine.timed(partial(ask, engine), self.runs))
            finally:
                engine.close()
        return both[0], both[1]


def share_equal(one: Timed, other: Timed) -> float:
    """The share of answers that are the same in both, token for token."""
    pairs = list(zip(one.answers, other.answers, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)
