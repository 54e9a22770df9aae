"""What the engine is given: prompts of random tokens, some of them sharing prefixes."""

from __future__ import annotations

import random
from dataclasses import dataclass

from load_tests.traces import TraceRequest


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request for the real engine and, as ``trace``, the same for the simulated one."""

    tokens: tuple[int, ...]
    trace: TraceRequest


@dataclass(frozen=True, slots=True)
class Mix:
    """``rate_per_s`` Poisson arrivals; prompts begin with one of ``families`` shared prefixes of
    ``shared_tokens`` with probability ``sharing``."""

    requests: int
    rate_per_s: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    sharing: float = 0.0
    families: int = 1
    shared_tokens: int = 0


def make_prompts(mix: Mix, block_size: int, vocabulary: int, seed: int) -> list[Prompt]:
    """Draw the requests, in order of arrival."""
    rng = random.Random(seed)
    prefixes = [_tokens(rng, mix.shared_tokens, vocabulary) for _ in range(mix.families)]
    prompts = []
    now = 0.0
    for _ in range(mix.requests):
        tokens = _tokens(rng, rng.randint(*mix.prompt_tokens), vocabulary)
        if rng.random() < mix.sharing:
            tokens = rng.choice(prefixes) + tokens
        output = rng.randint(*mix.output_tokens)
        trace = TraceRequest(now, len(tokens), output, chained_blocks(tokens, block_size))
        prompts.append(Prompt(tokens, trace))
        now += rng.expovariate(mix.rate_per_s)
    return prompts


def chained_blocks(tokens: tuple[int, ...], block_size: int) -> tuple[int, ...]:
    """A stand-in for the engine's block hashes: equal where whole prefixes are equal."""
    out = []
    key = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        key = hash((key, tokens[start : start + block_size])) & ((1 << 60) - 1)
        out.append(key)
    return tuple(out)


def _tokens(rng: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.randrange(10, vocabulary) for _ in range(count))
