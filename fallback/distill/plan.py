"""How a run goes, and what is known of it so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fallback.distill.compute import Work


@dataclass(frozen=True, slots=True)
class DistillationPlan:
    """`max_tokens` is per worker and step. `text_pools` bounds the teacher's generations."""

    seed: int = 1
    steps: int = 2000
    max_tokens: int = 4096
    workers: int = 1
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 50
    clip: float = 1.0
    precision: str = "bf16"
    compiled: bool = False
    log_every: int = 25
    save_every: int = 250
    text_pools: int = 8


@dataclass(slots=True)
class Progress:
    """What a checkpoint keeps besides tensors. `tokens` and FLOPs are of all workers."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    work: Work = field(default_factory=Work)
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """One point per logged step: step, loss parts, tokens/s."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "work": (self.work.needed, self.work.executed),
            "positions": dict(self.positions),
            "history": list(self.history),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds, self.work = state["seconds"], Work(*state["work"])
        self.positions = {name: (at[0], at[1]) for name, at in state["positions"].items()}
        self.history = list(state["history"])


def rate_factor(step: int, plan: DistillationPlan) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / plan.steps)))
    return warm * (0.02 + 0.98 * cosine)
