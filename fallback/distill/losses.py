"""What a student is pulled towards: pure functions of logits.

Forward KL at a temperature is Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
Network" (2015); the generalized Jensen-Shannon divergence on the student's own samples is Agarwal
et al., "On-Policy Distillation of Language Models" (GKD, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class TopK:
    """A teacher's opinion at some places, cut to its `k` likeliest tokens and the rest as one.

    `ids` (places, k) int64; `log_probs` (places, k) and `rest` (places,) float32, nats at the
    temperature that they were taken at; `rest` is the log of all other tokens' probability, minus
    infinity where there is no other token.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    rest: torch.Tensor


def top_k(logits: torch.Tensor, k: int, temperature: float) -> TopK:
    """The opinion that `logits` (places, vocabulary) hold; `k` is cut to the vocabulary."""
    log_probs = functional.log_softmax(logits.float() / temperature, dim=-1)
    values, ids = log_probs.topk(min(k, logits.shape[-1]), dim=-1)
    return TopK(ids, values, _others(log_probs, ids))


def probability_of(opinion: TopK, tokens: torch.Tensor) -> torch.Tensor:
    """The probability (places,) that the opinion gives `tokens` (places,); 0 outside its top k."""
    hits = opinion.ids == tokens.unsqueeze(-1)
    return (opinion.log_probs.exp() * hits).sum(dim=-1)


def _others(log_probs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log of the probability of all tokens but `ids`."""
    return log_probs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1)


def forward_kl(logits: torch.Tensor, teacher: TopK, temperature: float) -> torch.Tensor:
    """KL(teacher || student) per place, (places,), times temperature squared as Hinton has it.

    All tokens outside the teacher's top k count as one. That can only make the divergence smaller
    (data processing inequality), and it is exact where k is the vocabulary.
    """
    log_probs = functional.log_softmax(logits.float() / temperature, dim=-1)
    top = (teacher.log_probs.exp() * (teacher.log_probs - log_probs.gather(-1, teacher.ids))).sum(
        dim=-1
    )
    if teacher.ids.shape[-1] < logits.shape[-1]:
        rest = _others(log_probs, teacher.ids)
        top = top + teacher.rest.exp() * (teacher.rest - rest)
    return top * temperature**2


def generalized_jsd(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, beta: float, temperature: float
) -> torch.Tensor:
    """GKD's divergence per place, (places,), from logits (places, vocabulary).

    `beta` 0 is KL(teacher || student), 1 is KL(student || teacher) which seeks modes, and between
    them beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S.

    Raises:
        ValueError: `beta` outside 0 to 1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta lies in 0..1, not at {beta}")
    student = functional.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits.float() / temperature, dim=-1)
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    shares = torch.tensor([beta, 1 - beta], device=student.device).log()
    mixed = torch.logsumexp(torch.stack([teacher + shares[0], student + shares[1]]), dim=0)
    return beta * _kl(teacher, mixed) + (1 - beta) * _kl(student, mixed)


def _kl(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.exp() * (left - right)).sum(dim=-1)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of `values` (places,) by `weights` (places,); 0 where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-9)
