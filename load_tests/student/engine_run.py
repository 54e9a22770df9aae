"""One vLLM engine, measured from inside its process: a job as JSON on stdin, figures on stdout.

Prefill is timed on prompts of random tokens, decoding on the desk's questions with the answers'
own ends. Seconds are the process's own CPU time: it computes on one thread and is alone in there,
so that is wall time on an idle machine, and still means something on a busy one. The profile wraps
the model's forward pass and its output layer: what remains of a step is scheduling, input
preparation, sampling and detokenization, which do not shrink with the model.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

COUNTERS = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")


class Stopwatch:
    """CPU seconds spent inside the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - started

        return timed

    def attach(self, model: Any) -> None:
        """Times the forward pass and the output layer of a loaded model."""
        model.forward = self.around(model.forward)
        model.compute_logits = self.around(model.compute_logits)


class EngineRun:
    """An engine and the clock around it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM, SamplingParams

        self._parameters = SamplingParams
        started = time.perf_counter()
        self.llm = LLM(**arguments, disable_log_stats=False)
        self.start_s = time.perf_counter() - started
        self.watch = Stopwatch()
        self.llm.apply_model(self.watch.attach)

    def generate(self, prompts: Sequence[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        """CPU seconds, and the token ids said; greedy, all prompts at once."""
        wanted = self._parameters(temperature=0.0, max_tokens=tokens, detokenize=False)
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        started = time.process_time()
        outputs = self.llm.generate(inputs, wanted, use_tqdm=False)
        seconds = time.process_time() - started
        return seconds, [list(output.outputs[0].token_ids) for output in outputs]

    def counters(self) -> dict[str, float]:
        """Speculative decoding's counters so far."""
        found = dict.fromkeys(COUNTERS, 0.0)
        for metric in self.llm.get_metrics():
            name = metric.name.removeprefix("vllm:spec_decode_")
            if name in found and hasattr(metric, "value"):
                found[name] = float(metric.value)
        return found

    def prefill(self, rng: random.Random, vocabulary: int, repeats: int) -> float:
        """Tokens/s of prompts of 512 random tokens, four at a time; best of `repeats`."""
        best = 0.0
        for _ in range(repeats):
            prompts = [[rng.randrange(6, vocabulary) for _ in range(512)] for _ in range(4)]
            seconds, _ = self.generate(prompts, 1)
            best = max(best, 4 * 512 / seconds)
        return best

    def decode(self, prompts: Sequence[list[int]], batch: int) -> dict[str, Any]:
        """Answers to all prompts, `batch` at a time; prefill is timed apart and taken off."""
        decode_s, tokens, inside, wall = 0.0, 0, 0.0, 0.0
        before = self.counters()
        said: list[list[int]] = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            head_s, _ = self.generate(part, 1)
            marked = self.watch.seconds
            whole_s, answers = self.generate(part, 48)
            inside += self.watch.seconds - marked
            wall += whole_s
            said += answers
            new = sum(len(answer) - 1 for answer in answers)
            tokens += new
            decode_s += max(1e-9, whole_s - head_s)
        after = self.counters()
        return {
            "batch": batch,
            "decode_tokens_per_s": tokens / decode_s,
            "tokens": tokens,
            "model_share": inside / wall,
            "answers": said,
            **{name: after[name] - before[name] for name in COUNTERS},
        }


def main() -> None:
    """Runs the job; its result is the last line of stdout."""
    job = json.load(sys.stdin)
    # vLLM writes to stdout as well; ours is a file descriptor of its own.
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = EngineRun(job["arguments"])
    rng = random.Random(job["seed"])
    run.generate(job["prompts"][:2], 8)
    found: dict[str, Any] = {"start_s": run.start_s}
    found["prefill_tokens_per_s"] = run.prefill(rng, job["vocabulary"], job["repeats"])
    found["decode"] = [run.decode(job["prompts"], batch) for batch in job["batches"]]
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cache = run.llm.llm_engine.vllm_config.cache_config
    found["kv_tokens"] = (cache.num_gpu_blocks or 0) * cache.block_size
    print(json.dumps(found), file=result, flush=True)


if __name__ == "__main__":
    main()
