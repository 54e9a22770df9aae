"""Levers that guess tokens ahead. At temperature 0 the answers must stay what they are."""

from __future__ import annotations

import importlib.util
from typing import Any

from deployments.levers.engine import Bench, Engine, Timed, share_equal
from deployments.levers.registry import Outcome, lever


@lever("speculation-ngram", "speculative_config: {method: ngram, num_speculative_tokens: 4}")
def ngram(bench: Bench) -> Outcome:
    """Guesses from the prompt itself: one stream of a prompt that repeats."""
    guess = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
    return _guessing(bench, guess | {"prompt_lookup_min": 2})


@lever("speculation-draft", "models[].speculative: {draft: builtin:student, tokens: 3}")
def draft(bench: Bench) -> Outcome:
    """Guesses from a smaller model of the same tokenizer: one stream."""
    method = {"method": "draft_model", "model": bench.draft, "num_speculative_tokens": 3}
    return _guessing(bench, method)


@lever("speculation-suffix", "speculative_config: {method: suffix}")
def suffix(bench: Bench) -> Outcome:
    """Guesses from earlier answers; needs the package arctic-inference."""
    if importlib.util.find_spec("arctic_inference") is None:
        return Outcome(False, note="the package arctic-inference is not installed")
    return _guessing(bench, {"method": "suffix", "num_speculative_tokens": 8})


def _guessing(bench: Bench, method: dict[str, Any]) -> Outcome:
    def ask(engine: Engine) -> Timed:
        answers, seconds = [], 0.0
        for prompt in bench.prompts(engine, 4, 64):
            one = engine.answer([prompt], 96)
            answers += one.answers
            seconds += one.seconds
        return Timed(answers, seconds)

    plain, guessed = bench.compare(ask, {}, {"speculative_config": method})
    gain = plain.seconds / guessed.seconds
    return Outcome(True, share_equal(plain, guessed), gain, "time of single streams")
