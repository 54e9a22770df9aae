"""All figures of one model: what it gets right, how sure it is, how large and how fast it is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fallback.distill import models
from fallback.distill.compute import arithmetic
from fallback.distill.corpus import Row
from fallback.distill.feed import pack
from fallback.evaluation import calibration
from fallback.evaluation.answers import Answer, answer_all
from weir import samples

FIRST_TOKENS: Final = (1, 2, 4, 8, 16, 64)
"""How many leading tokens a confidence may look at; chosen among by AUROC."""
SIGNALS: Final = ("mean_logprob", "neg_entropy")


@dataclass(frozen=True)
class Split:
    """Held-out questions and what a model made of them."""

    examples: Sequence[samples.Example]
    answers: Sequence[Answer]

    @property
    def right(self) -> list[bool]:
        """Whether each answer is right, by the desk's checker."""
        pairs = zip(self.examples, self.answers, strict=True)
        return [samples.check(example, answer.text) for example, answer in pairs]

    def scores(self, signal: str, first: int) -> list[float]:
        """A confidence signal of each answer; higher is surer."""
        if signal == "mean_logprob":
            return [answer.mean_log_prob(first) for answer in self.answers]
        return [-answer.mean_entropy(first) for answer in self.answers]


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, per_intent: int
) -> Split:
    """A split of `per_intent` held-out questions of each intent."""
    examples = list(samples.requests(seed, per_intent * len(samples.INTENTS)))
    return Split(examples, answer_all(model, tokenizer, examples))


def accuracies(splits: Sequence[Split]) -> dict[str, Any]:
    """Share right and number asked, by group and by intent, over the splits together."""
    asked: dict[str, list[bool]] = {}
    for split in splits:
        for example, ok in zip(split.examples, split.right, strict=True):
            asked.setdefault(example.group, []).append(ok)
            asked.setdefault(example.intent, []).append(ok)
    told = {n: {"accuracy": sum(oks) / len(oks), "n": len(oks)} for n, oks in asked.items()}
    return {
        "groups": {name: told[name] for name in ("common", "rare") if name in told},
        "intents": {
            name: {"group": group, **told[name]}
            for name, group in samples.INTENTS.items()
            if name in told
        },
    }


def confidence(fit: Split, verify: Split, target: float) -> dict[str, Any]:
    """Signal, calibration and threshold: fitted on one split, verified on the other.

    `signals` compares them by AUROC on the fitting split. The served one is the mean
    log-probability at the number of tokens with the best AUROC: the engine reports it for free.
    """
    right = fit.right
    table: list[dict[str, Any]] = [
        {"signal": s, "first_tokens": k, "auroc": calibration.auroc(fit.scores(s, k), right)}
        for s in SIGNALS
        for k in FIRST_TOKENS
    ]
    served = [row for row in table if row["signal"] == "mean_logprob"]
    # Of equals the one that needs fewest tokens.
    first = int(max(served, key=lambda row: row["auroc"] or 0.0)["first_tokens"])
    scores, checked = fit.scores("mean_logprob", first), verify.scores("mean_logprob", first)
    platt = calibration.fit_platt(scores, right)
    threshold = calibration.fit_threshold(scores, right, target)
    # Log-probabilities are at most 0: nothing stands above 1.
    line = 1.0 if threshold is None else threshold
    bins = calibration.reliability([platt.probability(s) for s in checked], verify.right)
    raw = calibration.reliability([math.exp(min(0.0, s)) for s in checked], verify.right)
    return {
        "signal": "mean_logprob",
        "first_tokens": first,
        "threshold": line,
        "target_accuracy": target,
        "reachable": threshold is not None,
        "platt": asdict(platt),
        "auroc": calibration.auroc(checked, verify.right),
        "ece": calibration.expected_calibration_error(bins),
        "ece_uncalibrated": calibration.expected_calibration_error(raw),
        "fitted": asdict(calibration.kept(scores, right, line)),
        "verified": asdict(calibration.kept(checked, verify.right, line)),
        "bins": [asdict(each) for each in bins],
        "bins_uncalibrated": [asdict(each) for each in raw],
        "signals": table,
    }


def perplexity(
    model: PreTrainedModel, rows: Sequence[Row], pad: int, max_tokens: int = 8192
) -> float:
    """exp of the mean negative log-likelihood of the tokens that `rows` weigh in full."""
    import random

    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in pack(rows, max_tokens, pad, random.Random(0)):
            logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
            )
            wanted = batch.weights[:, 1:].flatten() >= 1.0
            total += float(losses[wanted].sum())
            count += int(wanted.sum())
    return math.exp(min(50.0, total / max(1, count)))


def folder_bytes(folder: str) -> int | None:
    """Size of a local model's weight files; None of one that is not a directory."""
    files = list(Path(folder).glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) if files else None


def size(model: PreTrainedModel, folder: str) -> dict[str, Any]:
    """Parameters, bytes on disk, and FLOPs per decoded token at a context of 512."""
    cost = arithmetic(model)
    return {
        "parameters": models.parameter_count(model),
        "weight_bytes": folder_bytes(folder),
        "flops_per_token_context_512": cost.forward(1, 1, 512),
    }


def speed(model: PreTrainedModel, seconds: float = 1.5) -> dict[str, float]:
    """Prefill and decode tokens/s of plain transformers, batch 8 of 256 tokens, best of repeats.

    One thread, per second of its CPU time, so that other work on the machine does not count. Not an
    engine's speed; `weir bench student` measures that.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _speed(model, seconds)
    finally:
        torch.set_num_threads(threads)


def _speed(model: PreTrainedModel, seconds: float) -> dict[str, float]:
    ids = torch.randint(0, model.config.vocab_size, (8, 256))
    best = {"prefill_tokens_per_s": 0.0, "decode_tokens_per_s": 0.0}
    until = time.monotonic() + seconds
    with torch.inference_mode():
        while True:
            started = time.process_time()
            output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
            _keep(best, "prefill_tokens_per_s", ids.numel(), started)
            past, token = output.past_key_values, ids[:, :1]
            started = time.process_time()
            for _ in range(8):
                past = model(input_ids=token, past_key_values=past, use_cache=True).past_key_values
            _keep(best, "decode_tokens_per_s", 8 * len(ids), started)
            if time.monotonic() > until:
                return best


def _keep(best: dict[str, float], name: str, tokens: int, started: float) -> None:
    best[name] = max(best[name], tokens / (time.process_time() - started))
