"""Levers of what an engine is for: prefill only, or embeddings."""

from __future__ import annotations

import math
import time
from typing import Any

from deployments.levers.engine import Bench, Engine
from deployments.levers.registry import Outcome, lever


@lever("prefill-only", "requests of one token (max_tokens: 1)")
def prefill_only(bench: Bench) -> Outcome:
    """Prompt tokens per second of an engine that only prefills, against one that decodes too."""
    engine = Engine(bench.model)
    try:
        prompts = bench.prompts(engine, 8, 500)
        mixed = engine.timed(lambda: engine.answer(prompts, 48), bench.runs)
        alone = engine.timed(lambda: engine.answer(prompts, 1), bench.runs)
    finally:
        engine.close()
    same = [a[:1] == b for a, b in zip(mixed.answers, alone.answers, strict=True)]
    gain = mixed.seconds / alone.seconds
    return Outcome(True, sum(same) / len(same), gain, "prompt tokens per second")


@lever("embedding", "runner: pooling, convert: embed")
def embedding(bench: Bench) -> Outcome:
    """Embeddings of 32 prompts at once against one after the other."""
    given: dict[str, Any] = {"runner": "pooling", "convert": "embed"}
    engine = Engine(bench.model, **given)
    try:
        prompts = bench.prompts(engine, 32)
        _embed(engine, prompts)
        together, batch_s = _embed(engine, prompts)
        single_s, alone = 0.0, []
        for prompt in prompts:
            vectors, seconds = _embed(engine, [prompt])
            alone += vectors
            single_s += seconds
    finally:
        engine.close()
    same = [_cosine(a, b) > 0.9999 for a, b in zip(together, alone, strict=True)]
    gain = single_s / batch_s
    return Outcome(all(same), sum(same) / len(same), gain, "prompts per second, 32 at once over 1")


def _embed(engine: Engine, prompts: list[list[int]]) -> tuple[list[list[float]], float]:
    from vllm.inputs import TokensPrompt

    asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
    begun_s = time.perf_counter()
    outputs = engine.llm.embed(asked, use_tqdm=False)
    seconds = time.perf_counter() - begun_s
    return [list(output.outputs.embedding) for output in outputs], seconds


def _cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / (math.hypot(*a) * math.hypot(*b))
