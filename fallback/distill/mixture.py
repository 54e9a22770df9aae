"""What the student learns from, and how much of each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["truth", "teacher", "student"]
"""Whose text a step reads: the corpus's, the teacher's own generations, the student's samples."""

KINDS: Final[tuple[Kind, ...]] = ("truth", "teacher", "student")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights of the loss parts, and shares of the steps.

    `kl` weighs the teacher's soft targets on any text that is read; `truth` and `sequence` weigh
    the cross entropy of the corpus's and of the teacher's text (sequence-level distillation, Kim
    and Rush 2016); `on_policy` the divergence on the student's own samples (GKD). The shares say
    how many of the steps read the teacher's text and the student's; the corpus gets the others.
    On the corpus the teacher is believed where it gives the next token at least the probability
    `trust`: what it gets wrong is not passed on.
    """

    kl: float = 1.0
    truth: float = 0.5
    sequence: float = 0.5
    on_policy: float = 1.0
    sequence_share: float = 0.25
    on_policy_share: float = 0.0
    temperature: float = 1.0
    top_k: int = 32
    trust: float = 0.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("kl", "truth", "sequence", "on_policy", "sequence_share", "on_policy_share"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.sequence_share + self.on_policy_share > 1:
            raise ValueError("sequence_share and on_policy_share must not exceed 1 together")
        if not 0 <= self.trust < 1:
            raise ValueError("trust lies in 0..1")
        if self.temperature <= 0 or self.top_k < 1 or not 0 <= self.beta <= 1:
            raise ValueError("temperature > 0, top_k >= 1 and beta in 0..1 are needed")
        reads_corpus = self.sequence_share + self.on_policy_share < 1
        if reads_corpus and self.kl == 0 and self.truth == 0:
            raise ValueError("nothing to learn from the corpus: kl and truth are both 0")
        if self.sequence_share > 0 and self.kl == 0 and self.sequence == 0:
            raise ValueError("nothing to learn from the teacher's text: kl and sequence are both 0")

    @property
    def needs_teacher(self) -> bool:
        """Whether any step asks the teacher for logits."""
        return self.kl > 0 or self.on_policy_share > 0

    def cross_entropy(self, kind: Kind) -> float:
        """Weight of the cross entropy on text of this kind."""
        return {"truth": self.truth, "teacher": self.sequence, "student": 0.0}[kind]

    def kind(self, seed: int, step: int) -> Kind:
        """Whose text step `step` reads: the same on all workers and after a restart."""
        draw = random.Random(f"kind/{seed}/{step}").random()
        if draw < self.on_policy_share:
            return "student"
        if draw < self.on_policy_share + self.sequence_share:
            return "teacher"
        return "truth"


GROUND_TRUTH_ONLY: Final = Mixture(kl=0.0, truth=1.0, sequence=0.0, sequence_share=0.0)
"""No teacher at all: what distillation is compared with."""
