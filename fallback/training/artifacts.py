"""Writes a trained teacher as other programs load it, with a manifest that vouches for it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fallback.training.evaluation import Score
from fallback.training.loop import Progress, TrainingPlan
from fallback.training.model import parameter_count
from weir import samples


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _held_out(scores: dict[str, Score]) -> dict[str, Any]:
    groups = {name: scores[name] for name in ("common", "rare") if name in scores}
    intents = {name: scores[name] for name in samples.INTENTS if name in scores}
    return {
        "n": sum(value.asked for value in groups.values()),
        "decoding": "greedy",
        "groups": {
            name: {"accuracy": round(value.accuracy, 4), "n": value.asked}
            for name, value in groups.items()
        },
        "intents": {
            name: {
                "group": samples.INTENTS[name],
                "accuracy": round(value.accuracy, 4),
                "n": value.asked,
            }
            for name, value in intents.items()
        },
    }


def save_teacher(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    plan: TrainingPlan,
    progress: Progress,
    scores: dict[str, Score],
    version: str,
    command: str,
) -> None:
    """Writes weights (bfloat16), configuration, tokenizer and manifest into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    files = sorted(path for path in out.iterdir() if path.name != "manifest.json")
    manifest = {
        "name": "weir-desk-teacher",
        "version": version,
        "parameters": parameter_count(model),
        "seed": plan.seed,
        "corpus_version": samples.CORPUS_VERSION,
        "training": {
            "tokens": progress.tokens,
            "steps": progress.step,
            "minutes": round(progress.minutes, 1),
            "tokens_per_s": round(progress.tokens / (progress.minutes * 60)),
            "hardware": f"{os.cpu_count()} CPU cores, bfloat16 autocast",
            "command": command,
        },
        "held_out": _held_out(scores),
        "sha256": {path.name: sha256_of(path) for path in files},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
