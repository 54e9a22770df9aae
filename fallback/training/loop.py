"""The train loop: bounded by minutes or steps, resumable, with progress lines.

Data parallel: each worker is one process with one thread, and gradients are averaged once per step.
Threads inside one process would meet at a barrier in every operator instead, which on a machine
with other work to do costs most of the speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn import functional
from transformers import LlamaForCausalLM

from fallback.training.batches import Batch

Probe = Callable[[LlamaForCausalLM], str]


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. The run ends after `minutes` of training, or after `steps` if not None.

    `max_tokens` is per worker and step.
    """

    seed: int = 1
    minutes: float = 40.0
    steps: int | None = None
    max_tokens: int = 2048
    workers: int = 2
    compiled: bool = True
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    log_every: int = 50
    probe_minutes: float = 4.0


@dataclass(slots=True)
class Progress:
    """What a checkpoint keeps besides the tensors."""

    step: int = 0
    tokens: int = 0
    minutes: float = 0.0
    pool: int = 0
    losses: list[float] = field(default_factory=list)

    def fraction(self, plan: TrainingPlan) -> float:
        """Share of the plan that is done, 0 to 1."""
        done = self.step / plan.steps if plan.steps else self.minutes / plan.minutes
        return min(1.0, done)


def learning_rate(plan: TrainingPlan, progress: Progress) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    warm = min(1.0, (progress.step + 1) / plan.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress.fraction(plan)))
    return plan.learning_rate * warm * (0.02 + 0.98 * cosine)


def make_optimizer(model: torch.nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """AdamW; vectors (norms) do not decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)


@dataclass(frozen=True)
class Learner:
    """A model under training, its optimizer, and its trunk, compiled or not."""

    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    trunk: Callable[..., Any]


def make_learner(model: LlamaForCausalLM, plan: TrainingPlan) -> Learner:
    """Optimizer and trunk for `model`."""
    trunk = torch.compile(model.model, dynamic=True) if plan.compiled else model.model
    return Learner(model, make_optimizer(model, plan), trunk)


def batch_loss(learner: Learner, batch: Batch) -> torch.Tensor:
    """Weighted mean cross entropy, nats per token; logits only where a weight is not zero.

    The number of such places is rounded up with places of weight 0, to keep shapes few.
    """
    targets, weights = batch.ids[:, 1:].flatten(), batch.weights[:, 1:].flatten()
    keep = torch.argsort(weights, descending=True)[: -(-int((weights > 0).sum()) // 128) * 128]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = learner.trunk(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = learner.model.lm_head(hidden[:, :-1].flatten(0, 1)[keep])
    losses = functional.cross_entropy(logits.float(), targets[keep], reduction="none")
    return (losses * weights[keep]).sum() / weights[keep].sum()


def share(model: torch.nn.Module, *sums: float) -> list[float]:
    """Averages gradients over the workers, in place, and adds up `sums` in the same message."""
    if not distributed.is_initialized():
        return list(sums)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(grad.flatten() for grad in gradients), torch.tensor(sums)])
    distributed.all_reduce(flat)
    offset = 0
    for grad in gradients:
        part = flat[offset : offset + grad.numel()].view_as(grad)
        grad.copy_(part / distributed.get_world_size())
        offset += grad.numel()
    return [float(value) for value in flat[offset:]]


def train_step(
    learner: Learner, batch: Batch, plan: TrainingPlan, progress: Progress, spent_minutes: float
) -> None:
    """One update, counted in `progress`.

    `spent_minutes` is the leader's time for the step before, 0 on the others, so that all workers
    agree on how far the plan is.
    """
    learner.model.train()
    for group in learner.optimizer.param_groups:
        group["lr"] = learning_rate(plan, progress)
    loss = batch_loss(learner, batch)
    loss.backward()
    tokens, minutes, total = share(learner.model, batch.tokens, spent_minutes, loss.item())
    torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    progress.tokens += int(tokens)
    progress.minutes += minutes
    progress.pool = batch.pool
    progress.losses.append(total / plan.workers)


def save_checkpoint(path: Path, learner: Learner, progress: Progress) -> None:
    """Writes a checkpoint; the file is replaced whole, so that a stop cannot tear it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "progress": (progress.step, progress.tokens, progress.minutes, progress.pool),
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_checkpoint(path: Path, learner: Learner) -> Progress:
    """Restores model and optimizer in place. Raises FileNotFoundError if there is none."""
    state = torch.load(path, weights_only=True)
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    step, tokens, minutes, pool = state["progress"]
    return Progress(step, tokens, minutes, pool)


def report(plan: TrainingPlan, progress: Progress, probe: str = "") -> None:
    """Prints one progress line."""
    recent = progress.losses[-plan.log_every :]
    left = progress.minutes * (1 / max(progress.fraction(plan), 1e-9) - 1)
    print(
        f"step {progress.step:6d}  loss {sum(recent) / max(1, len(recent)):.4f}  "
        f"lr {learning_rate(plan, progress):.2e}  {progress.tokens / 1e6:6.2f}M tokens  "
        f"{progress.tokens / max(progress.minutes * 60, 1e-9):6.0f} tokens/s  "
        f"{progress.minutes:5.1f} min, {left:5.1f} left  {probe}",
        flush=True,
    )


def train(
    learner: Learner,
    stream: Iterator[Batch],
    plan: TrainingPlan,
    progress: Progress,
    probe: Probe | None,
    save: Callable[[Progress], None],
) -> None:
    """Trains until the plan is done; the leader probes and saves every `probe_minutes`.

    Args:
        probe: what to add to the progress line; None on workers that do not lead.
        save: called by the leader with the progress so far. Probes and saves are not counted.
    """
    next_probe = progress.minutes + plan.probe_minutes
    spent = 0.0
    while progress.fraction(plan) < 1.0:
        started = time.monotonic()
        train_step(learner, next(stream), plan, progress, spent)
        if probe is None:
            continue
        spent = (time.monotonic() - started) / 60
        if progress.minutes >= next_probe:
            next_probe += plan.probe_minutes
            report(plan, progress, probe(learner.model))
            save(progress)
        elif progress.step % plan.log_every == 0:
            report(plan, progress)
    if probe is not None:
        save(progress)
