"""The distillation loop, on Accelerate: devices, precision, data parallelism and checkpoints.

Every step reads one kind of text (mixture.py), the same kind on all workers, and asks the teacher
where the loss needs it. A run that is killed goes on from its last checkpoint with the same
batches.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn import functional
from transformers import PreTrainedModel

from fallback.distill.compute import Arithmetic, arithmetic
from fallback.distill.feed import Batch, Feed, pad
from fallback.distill.generations import Sampling, own_samples
from fallback.distill.losses import (
    forward_kl,
    generalized_jsd,
    probability_of,
    weighted_mean,
)
from fallback.distill.mixture import Kind, Mixture
from fallback.distill.models import KeptLogits
from fallback.distill.plan import DistillationPlan, Progress, rate_factor
from fallback.distill.signals import Opinions

CHECKPOINT = "checkpoint"
Parts = dict[str, float]
Listener = Callable[[Progress, Parts], None]


@dataclass(frozen=True)
class Bench:
    """Everything that a step needs. `feeds` by kind of text; `student` is the bare model."""

    accelerator: Accelerator
    student: PreTrainedModel
    wrapped: Any
    optimizer: Any
    scheduler: Any
    opinions: Opinions | None
    feeds: Mapping[Kind, Feed]
    mixture: Mixture
    plan: DistillationPlan
    pad_id: int
    costs: tuple[Arithmetic, Arithmetic | None]


def make_accelerator(plan: DistillationPlan, cpu: bool) -> Accelerator:
    """This worker's Accelerator."""
    precision = plan.precision if plan.precision != "fp32" else "no"
    return Accelerator(mixed_precision=precision, cpu=cpu)


def make_bench(
    accelerator: Accelerator,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    feeds: Mapping[Kind, Feed],
    mixture: Mixture,
    plan: DistillationPlan,
    pad_id: int,
    cache: Path | None = None,
) -> Bench:
    """Wires a run. `teacher` may be None where the mixture needs none."""
    matrices = [p for p in student.parameters() if p.ndim > 1]
    vectors = [p for p in student.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: rate_factor(n, plan))
    costs = (arithmetic(student), arithmetic(teacher) if teacher is not None else None)
    wrapped, optimizer = accelerator.prepare(KeptLogits(student, plan.compiled), optimizer)
    opinions = None
    if teacher is not None:
        frozen = KeptLogits(teacher.requires_grad_(False), plan.compiled)
        frozen = accelerator.prepare_model(frozen, evaluation_mode=True)
        opinions = Opinions(frozen, mixture.top_k, mixture.temperature, cache)
    return Bench(
        accelerator, student, wrapped, optimizer, scheduler, opinions, feeds, mixture, plan,
        pad_id, costs,
    )  # fmt: skip


def _read(bench: Bench, kind: Kind, progress: Progress) -> Batch:
    """The batch of this step; samples by the student where the kind says so."""
    batch = bench.feeds[kind].next()
    if kind == "student":
        rng = random.Random(f"samples/{bench.plan.seed}/{progress.step}")
        rows = [
            (
                ids[ids != bench.pad_id].tolist(),
                weights[: int((ids != bench.pad_id).sum())].tolist(),
            )
            for ids, weights in zip(batch.ids, batch.weights, strict=True)
        ]
        sampling = Sampling(temperature=1.0)
        made = own_samples(bench.student, rows, bench.pad_id, sampling, rng)
        batch = pad(made, bench.pad_id) if made else batch
        new = int((batch.weights > 0).sum())
        progress.work.add_generation(
            bench.costs[0], batch.real_tokens - new, new, batch.ids.shape[1]
        )
    device = bench.accelerator.device
    return Batch(batch.ids.to(device), batch.weights.to(device), batch.real_tokens)


def step_loss(
    bench: Bench, kind: Kind, batch: Batch, key: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of one batch with a gradient, and its parts, unweighted, without."""
    mixture = bench.mixture
    places = batch.places()
    weights = batch.weights[:, 1:].flatten()[places]
    targets = batch.ids[:, 1:].flatten()[places]
    logits = bench.wrapped(batch.ids, places)
    parts: dict[str, torch.Tensor] = {}
    total = logits.sum() * 0.0
    if kind == "student":
        assert bench.opinions is not None
        theirs = bench.opinions.logits(batch, places)
        jsd = generalized_jsd(logits, theirs, mixture.beta, mixture.temperature)
        parts["on_policy"] = weighted_mean(jsd, weights)
        total = total + mixture.on_policy * parts["on_policy"]
    elif mixture.kl > 0:
        assert bench.opinions is not None
        opinion = bench.opinions.of(batch, places, key)
        believed = weights
        if kind == "truth" and mixture.trust > 0:
            believed = weights * (probability_of(opinion, targets) >= mixture.trust)
        parts["kl"] = weighted_mean(forward_kl(logits, opinion, mixture.temperature), believed)
        total = total + mixture.kl * parts["kl"]
    if (share := mixture.cross_entropy(kind)) > 0:
        losses = functional.cross_entropy(logits, targets, reduction="none")
        parts[kind] = weighted_mean(losses, weights)
        total = total + share * parts[kind]
    return total, {name: part.detach() for name, part in parts.items()}


def _step_seed(seed: int, step: int, rank: int) -> int:
    return random.Random(f"step/{seed}/{step}/{rank}").getrandbits(48)


def train_step(bench: Bench, progress: Progress) -> Parts:
    """One update, counted in `progress`; the loss parts of this worker."""
    started = time.monotonic()
    accelerator, plan = bench.accelerator, bench.plan
    # Dropout and samples of a step do not depend on when the run was last restarted.
    torch.manual_seed(_step_seed(plan.seed, progress.step, accelerator.process_index))
    kind = bench.mixture.kind(plan.seed, progress.step)
    batch = _read(bench, kind, progress)
    bench.wrapped.train()
    key = f"{kind}-{progress.step}-{accelerator.process_index}"
    total, parts = step_loss(bench, kind, batch, key)
    accelerator.backward(total)
    accelerator.clip_grad_norm_(bench.wrapped.parameters(), plan.clip)
    bench.optimizer.step()
    bench.scheduler.step()
    bench.optimizer.zero_grad(set_to_none=True)
    teacher = bench.costs[1] if "kl" in parts or kind == "student" else None
    places = int((batch.weights > 0).sum())
    # Every worker's batch is about the same size; the leader's stands for all.
    scaled = (batch.real_tokens * plan.workers, batch.tokens * plan.workers)
    progress.work.add_step(
        bench.costs[0], teacher, scaled, places * plan.workers, batch.ids.shape[1]
    )
    progress.step += 1
    progress.tokens += scaled[1]
    progress.positions = {name: feed.position for name, feed in bench.feeds.items()}
    progress.seconds += time.monotonic() - started
    return {name: float(part) for name, part in parts.items()} | {"loss": float(total.detach())}


def run(bench: Bench, progress: Progress, folder: Path, listen: Listener | None) -> None:
    """Trains to the plan's end; the leader saves into `folder` and tells `listen` each step."""
    while progress.step < bench.plan.steps:
        parts = train_step(bench, progress)
        if listen is not None:
            listen(progress, parts)
        if progress.step % bench.plan.save_every == 0 or progress.step == bench.plan.steps:
            save(bench, progress, folder)


def save(bench: Bench, progress: Progress, folder: Path) -> None:
    """Writes a checkpoint; the old one stays until the new one is whole."""
    bench.accelerator.wait_for_everyone()
    if bench.accelerator.is_main_process:
        part, old = folder / f"{CHECKPOINT}.part", folder / f"{CHECKPOINT}.old"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        state = {
            "student": bench.student.state_dict(),
            "optimizer": bench.optimizer.state_dict(),
            "scheduler": bench.scheduler.state_dict(),
            "progress": progress.state_dict(),
        }
        torch.save(state, part / "state.pt")
        shutil.rmtree(old, ignore_errors=True)
        if (folder / CHECKPOINT).exists():
            os.replace(folder / CHECKPOINT, old)
        os.replace(part, folder / CHECKPOINT)
        shutil.rmtree(old, ignore_errors=True)
    bench.accelerator.wait_for_everyone()


def restore(bench: Bench, progress: Progress, folder: Path) -> bool:
    """Goes back to the last whole checkpoint; False if there is none."""
    found = [folder / name / "state.pt" for name in (CHECKPOINT, f"{CHECKPOINT}.old")]
    path = next((each for each in found if each.is_file()), None)
    if path is None:
        return False
    state = torch.load(path, weights_only=True, map_location=bench.accelerator.device)
    bench.student.load_state_dict(state["student"])
    bench.optimizer.load_state_dict(state["optimizer"])
    bench.scheduler.load_state_dict(state["scheduler"])
    progress.load_state_dict(state["progress"])
    for name, feed in bench.feeds.items():
        if name in progress.positions:
            feed.position = progress.positions[name]
    return True
