"""Levers of the KV cache."""

from __future__ import annotations

from deployments.levers.engine import Bench, Engine, Timed, share_equal
from deployments.levers.registry import Outcome, lever


@lever("prefix-caching", "enable_prefix_caching: true")
def prefix_caching(bench: Bench) -> Outcome:
    """Eight prompts of 1,500 tokens that share all but the end, asked again and again."""

    def ask(engine: Engine) -> Timed:
        shared = bench.prompts(engine, 1, 1500)[0]
        return engine.answer([shared + end for end in bench.prompts(engine, 8)], 8)

    plain, cached = bench.compare(ask, {}, {"enable_prefix_caching": True})
    gain = plain.seconds / cached.seconds
    return Outcome(gain > 1, share_equal(plain, cached), gain, "time of 8 prompts of one prefix")


@lever("kv-fp8", "kv_cache_dtype: fp8")
def kv_fp8(bench: Bench) -> Outcome:
    """Tokens that fit into the same bytes, and how many answers stay as they are."""
    return _smaller_kv(bench, "fp8")


@lever("kv-int8", "kv_cache_dtype: int8_per_token_head")
def kv_int8(bench: Bench) -> Outcome:
    """As for fp8."""
    return _smaller_kv(bench, "int8_per_token_head")


def _smaller_kv(bench: Bench, kind: str) -> Outcome:
    blocks: list[int] = []

    def ask(engine: Engine) -> Timed:
        blocks.append(engine.kv_blocks)
        return engine.answer(bench.prompts(engine, 8), 32)

    # bfloat16 in both: the gain is not to be float32's.
    plain, small = bench.compare(ask, {"dtype": "bfloat16"}, _kv(kind))
    alike = _agreement(plain, small)
    note = f"{alike:.0%} of the tokens up to the first that differs"
    gain = blocks[-1] / blocks[0]
    # Rounded keys move a few answers; a cache that gives garbage moves the first token of most.
    return Outcome(alike > 0.2, share_equal(plain, small), gain, "KV blocks in as many bytes", note)


def _kv(kind: str) -> dict[str, object]:
    return {"dtype": "bfloat16", "kv_cache_dtype": kind}


def _agreement(one: Timed, other: Timed) -> float:
    """The mean share of an answer before the first token that differs."""
    shares = []
    for a, b in zip(one.answers, other.answers, strict=True):
        same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        shares.append(same / max(1, len(a)))
    return sum(shares) / len(shares)
