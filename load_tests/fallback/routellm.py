"""How much a router between a weak and a strong model saves, on RouteLLM's published answers.

The data says of each question whether Mixtral-8x7B (weak) and GPT-4 (strong) answered it right;
there is nothing of the weak model's confidence in it. So this is routing *before* an answer: a
ridge regression from the question's words (hashed, with the length) to ``strong right - weak
right``, which sends the questions with the highest prediction to the strong model. Each question
is predicted by a regression that was fitted on the other folds. Bounds: an oracle that knows both
answers, and a coin. A cascade on the weak model's own confidence needs that model's
log-probabilities, and is measured live on weir's own pair.

RouteLLM: Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data", ICLR 2025
(arXiv:2406.18665). The prices are theirs, per million tokens.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.traces.reading import json_lines

FILE = "routellm_quality_dev.jsonl.gz"
STRONG_USD, WEAK_USD = 24.7, 0.24
QUALITIES = (0.95, 0.90)
# Cost saved at 95 % of GPT-4's quality, from the authors' announcement
# (lmsys.org/blog/2024-07-01-routellm): "45 % on MMLU, and 35 % on GSM8K".
PUBLISHED_SAVED = {"mmlu": 0.45, "gsm8k": 0.35}
_BUCKETS = 2048
_FOLDS = 5
_RIDGE = 0.3
_WORD = re.compile(r"[a-z]+|\d|[^\sa-z\d]")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Questions:
    """One benchmark: prompts, and who was right (0 or 1), by position."""

    name: str
    prompts: Sequence[str]
    weak: Floats
    strong: Floats


def read_questions(folder: Path) -> Iterator[Questions]:
    """MMLU and GSM8K, each with a router of its own.

    Raises:
        TraceError: the file is not there, or not what it should be.
    """
    rows = [row for _, row in json_lines(folder / FILE)]
    for name in ("mmlu", "gsm8k"):
        mine = [row for row in rows if str(row["ds"]).startswith(name)]
        yield Questions(
            name,
            [str(row["prompt"]) for row in mine],
            np.array([row["weak_ok"] for row in mine], dtype=float),
            np.array([row["strong_ok"] for row in mine], dtype=float),
        )


def hashed_words(prompts: Sequence[str]) -> Floats:
    """One row per prompt: normalised counts of hashed words and word pairs, its length, a one."""
    table = np.zeros((len(prompts), _BUCKETS + 2))
    for row, prompt in enumerate(prompts):
        words = _WORD.findall(prompt.lower())
        pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
        for term in (*words, *pairs):
            table[row, zlib.crc32(term.encode()) % _BUCKETS] += 1.0
        norm = float(np.linalg.norm(table[row])) or 1.0
        table[row] /= norm
        table[row, _BUCKETS] = math.log1p(len(words)) / 10
        table[row, _BUCKETS + 1] = 1.0
    return table


def predicted_gain(questions: Questions, seed: int) -> Floats:
    """What the strong model is expected to add on each question, by cross-fitting."""
    features = hashed_words(questions.prompts)
    gain = questions.strong - questions.weak
    fold = np.random.default_rng(seed).integers(0, _FOLDS, len(gain))
    found = np.zeros(len(gain))
    for held_out in range(_FOLDS):
        test = fold == held_out
        known = features[~test]
        gram = known.T @ known + _RIDGE * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, known.T @ gain[~test])
        found[test] = features[test] @ weights
    return found


def strong_share(questions: Questions, order: Floats, quality: float) -> float:
    """The least share of questions that must go to the strong model, highest ``order`` first, so
    that the accuracy is ``quality`` times the strong model's."""
    ranked = np.argsort(-order, kind="stable")
    gain = (questions.strong - questions.weak)[ranked]
    accuracy = (questions.weak.sum() + np.concatenate(([0.0], np.cumsum(gain)))) / len(gain)
    enough = np.flatnonzero(accuracy >= quality * questions.strong.mean() - 1e-12)
    return float(enough[0]) / len(gain)


def coin_share(questions: Questions, quality: float) -> float:
    """The same for a router that knows nothing."""
    weak, strong = questions.weak.mean(), questions.strong.mean()
    return float(min(1.0, max(0.0, (quality * strong - weak) / (strong - weak))))


def saved(share: float) -> float:
    """The part of the cost of sending everything to the strong model."""
    return (1 - share) * (1 - WEAK_USD / STRONG_USD)


def rows(folder: Path, seed: int) -> list[dict[str, Any]]:
    """One row per benchmark and router."""
    made = []
    for questions in read_questions(folder):
        gain = questions.strong - questions.weak
        routers = {
            "text regression": predicted_gain(questions, seed),
            "oracle": gain + 0.0,
            "coin": None,
        }
        for router, order in routers.items():
            row: dict[str, Any] = {
                "system": f"{questions.name}: {router}",
                "table": "routing, simulated",
                "questions": len(gain),
                "weak_accuracy": float(questions.weak.mean()),
                "strong_accuracy": float(questions.strong.mean()),
            }
            for quality in QUALITIES:
                share = (
                    coin_share(questions, quality)
                    if order is None
                    else strong_share(questions, order, quality)
                )
                percent = round(quality * 100)
                row[f"strong_share_at_{percent}_ratio"] = share
                row[f"cost_saved_at_{percent}_ratio"] = saved(share)
            made.append(row)
        made.append(
            {
                "system": f"{questions.name}: RouteLLM, published",
                "table": "routing, simulated",
                "cost_saved_at_95_ratio": PUBLISHED_SAVED[questions.name],
            }
        )
    return made
