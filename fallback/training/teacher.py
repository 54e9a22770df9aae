"""Trains the teacher: `python -m fallback.training.teacher --out platform/weir/artifacts/teacher`.

Steps: learn a tokenizer, train a small Llama on the desk's conversations, evaluate it on held-out
ones, write the artifacts with a manifest. Stops after `--minutes` of training; `--resume` goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import distributed, multiprocessing
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fallback.training import tokenization
from fallback.training.artifacts import save_teacher
from fallback.training.batches import batches
from fallback.training.circuits import seed_copying
from fallback.training.evaluation import answer, score
from fallback.training.loop import (
    Progress,
    TrainingPlan,
    load_checkpoint,
    make_learner,
    save_checkpoint,
    train,
)
from fallback.training.model import Shape, build, parameter_count
from weir import samples

EVALUATION_SEED = 20_261_120
PROBE_SEED = 77


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="fallback.training.teacher", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("platform/weir/artifacts/teacher"))
    made.add_argument("--cache", type=Path, default=Path(".cache/training/teacher"))
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--minutes", type=float, default=40.0, help="training time, probes excluded")
    made.add_argument("--steps", type=int, help="train this many steps instead of --minutes")
    made.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    made.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    made.add_argument("--learning-rate", type=float, default=TrainingPlan.learning_rate)
    made.add_argument(
        "--batch-tokens", type=int, default=TrainingPlan.max_tokens, help="per worker"
    )
    made.add_argument("--per-intent", type=int, default=60, help="held-out questions per intent")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint in --cache")
    made.add_argument("--evaluate-only", action="store_true", help="no training: finish --cache")
    made.add_argument("--version", default="1.1.0", help="version to write into the manifest")
    return made


def load_tokenizer(cache: Path, seed: int) -> Tokenizer:
    """The tokenizer of this seed, learned once and kept in `cache`."""
    path = cache / f"tokenizer-{samples.CORPUS_VERSION}-{seed}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        tokenization.train_tokenizer(seed).save(str(path))
    return Tokenizer.from_file(str(path))


def probe(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    """A quick held-out check for the progress line."""
    examples = list(samples.requests(PROBE_SEED, 6 * len(samples.INTENTS)))
    scores = score(examples, answer(model, tokenizer, examples))
    weak = sorted((s.accuracy, n) for n, s in scores.items() if n not in ("common", "rare"))[:10]
    return (
        f"held-out common {scores['common'].accuracy:.2f} rare {scores['rare'].accuracy:.2f}  "
        f"weakest {', '.join(f'{name} {value:.2f}' for value, name in weak)}"
    )


def plan_of(arguments: argparse.Namespace) -> TrainingPlan:
    """The plan that the command line asks for."""
    return TrainingPlan(
        seed=arguments.seed,
        minutes=arguments.minutes,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        max_tokens=arguments.batch_tokens,
        workers=arguments.workers,
        compiled=not arguments.no_compile,
    )


def work(rank: int, arguments: argparse.Namespace) -> None:
    """One worker's whole training; worker 0 leads: it probes, reports and saves."""
    plan = plan_of(arguments)
    torch.set_num_threads(1)
    if plan.workers > 1:
        meet = f"file://{(arguments.cache / 'meeting').resolve()}"
        distributed.init_process_group("gloo", meet, rank=rank, world_size=plan.workers)
    raw = load_tokenizer(arguments.cache, arguments.seed)
    tokenizer = tokenization.wrap(raw)
    model = build(Shape(), raw, plan.seed)
    seed_copying(model, plan.seed)
    learner = make_learner(model, plan)
    checkpoint = arguments.cache / "checkpoint.pt"
    progress = load_checkpoint(checkpoint, learner) if arguments.resume else Progress()
    if rank == 0:
        print(f"{parameter_count(learner.model) / 1e6:.2f}M parameters, {plan}", flush=True)
    # The pool after the checkpoint's: its worker may have been in the middle of it.
    first = progress.pool - progress.pool % plan.workers + plan.workers * (progress.step > 0)
    train(
        learner,
        batches(raw, plan.seed, plan.max_tokens, pool=first + rank, stride=plan.workers),
        plan,
        progress,
        probe=(lambda trained: probe(trained, tokenizer)) if rank == 0 else None,
        save=lambda state: save_checkpoint(checkpoint, learner, state),
    )
    if plan.workers > 1:
        distributed.destroy_process_group()


def finish(arguments: argparse.Namespace, command: str) -> None:
    """Evaluates the checkpoint on held-out questions and writes the artifacts."""
    plan = plan_of(arguments)
    raw = load_tokenizer(arguments.cache, arguments.seed)
    tokenizer = tokenization.wrap(raw)
    learner = make_learner(build(Shape(), raw, plan.seed), replace(plan, compiled=False))
    progress = load_checkpoint(arguments.cache / "checkpoint.pt", learner)
    examples = list(samples.requests(EVALUATION_SEED, arguments.per_intent * len(samples.INTENTS)))
    # Judged as it will be loaded: with the weights rounded to bfloat16.
    model = learner.model.to(torch.bfloat16).float()
    scores = score(examples, answer(model, tokenizer, examples))
    for name, value in sorted(scores.items()):
        print(f"{name:22s} {value.right:5d} of {value.asked:5d}  {value.accuracy:.3f}")
    version = arguments.version
    save_teacher(arguments.out, model, tokenizer, plan, progress, scores, version, command)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parser().parse_args(argv)
    load_tokenizer(arguments.cache, arguments.seed)
    if not arguments.evaluate_only:
        (arguments.cache / "meeting").unlink(missing_ok=True)
        if arguments.workers > 1:
            multiprocessing.spawn(work, args=(arguments,), nprocs=arguments.workers)
        else:
            work(0, arguments)
    words = sys.argv[1:] if argv is None else argv
    finish(arguments, shlex.join(["python", "-m", "fallback.training.teacher", *words]))


if __name__ == "__main__":
    main()
