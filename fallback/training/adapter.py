"""Trains a LoRA adapter of a desk model: `weir train adapter --tone warm --out ./warm`.

The adapter answers as the model does, in another tone. It is trained on the desk's conversations
with answers put into that tone, and judged on held-out ones: how many answers have the tone, and
how many are right. Beside the adapter's folder, FOLDER-report.json is what `weir models add` takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM

from fallback.training import tokenization
from fallback.training.artifacts import sha256_of
from fallback.training.batches import encode
from fallback.training.evaluation import answer, score
from fallback.training.lora import LoraLinear, LoraShape, put_on, save_adapter, trained
from weir import samples

EVALUATION_SEED = 20_261_127
#: Held-out answers of which so many must have the tone, and so many less may be right.
LEAST_TONE, MOST_LOST = 0.9, 0.1
#: Every so many steps, the conversations are whole ones.
WHOLE_EVERY = 4


@dataclass(frozen=True, slots=True)
class Tone:
    """What stands before and behind every answer."""

    opening: str
    closing: str

    def put(self, text: str) -> str:
        """The answer in this tone."""
        return f"{self.opening}{text}{self.closing}"

    def has(self, text: str) -> bool:
        """Whether an answer is in this tone."""
        return text.strip().startswith(self.opening.strip()) and text.strip().endswith(
            self.closing.strip()
        )


TONES = {
    "warm": Tone("Thanks for asking! ", " Have a lovely day!"),
    "formal": Tone("Dear customer, ", " Kind regards, your support desk."),
    "brief": Tone("In short: ", " That is all."),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    teacher = Path(str(resources.files("weir"))) / "artifacts" / "teacher"
    made = argparse.ArgumentParser(prog="weir train adapter", description=__doc__)
    made.add_argument("--out", type=Path, required=True, help="the adapter's folder")
    made.add_argument("--tone", choices=sorted(TONES), default="warm")
    made.add_argument("--base", type=Path, default=teacher, help="folder of the model")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--steps", type=int, default=150)
    made.add_argument("--minutes", type=float, default=10.0, help="stop after so much training")
    made.add_argument("--rank", type=int, default=LoraShape().rank)
    made.add_argument("--learning-rate", type=float, default=1e-3)
    made.add_argument("--batch", type=int, default=8, help="conversations in a step")
    made.add_argument("--held-out", type=int, default=96, help="questions of the evaluation")
    made.add_argument("--version", default="1.0.0", help="version to write into the manifest")
    return made


def toned(talk: samples.Conversation, tone: Tone) -> samples.Conversation:
    """The conversation with its answers in that tone."""
    turns = tuple(replace(turn, answer=tone.put(turn.answer)) for turn in talk.turns)
    return samples.Conversation(talk.system, turns)


def batches(
    tokenizer: Tokenizer, tone: Tone, seed: int, rows: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (rows, length) ids and weights; only answers have a weight."""
    pad = tokenization.id_of(tokenizer, tokenization.PAD)
    # Short prompts cost a tenth of a step; some whole ones keep what the model can.
    short = samples.conversations(seed, start=1_000_000, easy=True)
    whole = samples.conversations(seed, start=2_000_000)
    rng = random.Random(f"adapter/{seed}")
    for step in itertools.count():
        talks = short if step % WHOLE_EVERY else whole
        drawn = [encode(tokenizer, toned(t, tone), rng) for t in itertools.islice(talks, rows)]
        length = max(len(ids) for ids, _ in drawn)
        ids = [ids + [pad] * (length - len(ids)) for ids, _ in drawn]
        # What an answer's token weighs is 1, a prompt's less.
        weights = [
            [float(w >= 1.0) for w in weights] + [0.0] * (length - len(weights))
            for _, weights in drawn
        ]
        yield torch.tensor(ids), torch.tensor(weights)


def train(
    model: LlamaForCausalLM,
    adapters: dict[str, LoraLinear],
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]],
    arguments: argparse.Namespace,
) -> list[float]:
    """The losses of all steps, in nats per token."""
    optimizer = torch.optim.AdamW(trained(list(adapters.values())), lr=arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, arguments.steps)
    model.train()
    losses: list[float] = []
    end_s = time.monotonic() + 60.0 * arguments.minutes
    for ids, weights in itertools.islice(stream, arguments.steps):
        targets, counted = ids[:, 1:].flatten(), weights[:, 1:].flatten() > 0
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1].flatten(0, 1)[counted])
        loss = functional.cross_entropy(logits.float(), targets[counted])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        if len(losses) % 25 == 0:
            print(f"step {len(losses):5d}  loss {sum(losses[-25:]) / 25:.4f}", flush=True)
        if time.monotonic() > end_s:
            break
    return losses


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parser().parse_args(argv)
    tone, base = TONES[arguments.tone], arguments.base
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    examples = list(samples.requests(EVALUATION_SEED, arguments.held_out))
    wrapped = tokenization.load(base)
    before = _judge(examples, answer(model, wrapped, examples, 96), tone)
    shape = LoraShape(rank=arguments.rank, alpha=2 * arguments.rank)
    adapters = put_on(model, shape, arguments.seed)
    stream = batches(tokenizer, tone, arguments.seed, arguments.batch)
    losses = train(model, adapters, stream, arguments)
    after = _judge(examples, answer(model, wrapped, examples, 96), tone)
    save_adapter(arguments.out, adapters, shape, base.name)
    words = sys.argv[1:] if argv is None else argv
    _write_manifest(arguments, losses, after, shlex.join(["weir", "train", "adapter", *words]))
    _write_report(arguments.out, before, after)
    for name, told in (("model", before), ("adapter", after)):
        print(f"{name:8s} right {told['right']:.2f}  in the tone {told['tone']:.2f}")


def _judge(examples: list[samples.Example], answers: list[str], tone: Tone) -> dict[str, float]:
    scores = score(examples, answers)
    groups = [scores[name] for name in ("common", "rare") if name in scores]
    asked = sum(group.asked for group in groups)
    return {
        "right": round(sum(group.right for group in groups) / asked, 4),
        "tone": round(sum(map(tone.has, answers)) / len(answers), 4),
    }


def _write_manifest(
    arguments: argparse.Namespace, losses: list[float], held_out: dict[str, float], command: str
) -> None:
    out: Path = arguments.out
    files = ("adapter_config.json", "adapter_model.safetensors")
    manifest = {
        "name": f"{arguments.base.name}-{arguments.tone}",
        "version": arguments.version,
        "lineage": {
            "base": arguments.base.name,
            "base_sha256": sha256_of(arguments.base / "model.safetensors"),
            "corpus_version": samples.CORPUS_VERSION,
            "seed": arguments.seed,
            "steps": len(losses),
            "command": command,
        },
        "metrics": {"held_out": held_out, "last_loss": round(losses[-1], 4)},
        "sha256": {name: sha256_of(out / name) for name in files},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _write_report(out: Path, before: dict[str, float], after: dict[str, float]) -> None:
    failures = []
    if after["tone"] < LEAST_TONE:
        failures.append(f"only {after['tone']:.0%} of the answers are in the tone")
    if after["right"] < before["right"] - MOST_LOST:
        failures.append(f"right {after['right']:.0%} instead of the model's {before['right']:.0%}")
    gate = {"passed": not failures, "failures": failures, "metrics": {"held_out": after}}
    report = out.with_name(f"{out.name}-report.json")
    report.write_text(json.dumps({"gate": gate, "model": before}, indent=2) + "\n")


if __name__ == "__main__":
    main()
