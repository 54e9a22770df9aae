"""The losses against naive sums, and their limits."""

import math

import pytest
import torch

from fallback.distill.losses import (
    TopK,
    forward_kl,
    generalized_jsd,
    probability_of,
    top_k,
    weighted_mean,
)

PLACES, VOCABULARY = 5, 17


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    student, teacher = 3 * torch.randn(2, PLACES, VOCABULARY, generator=generator)
    return student, teacher


def _probabilities(row: torch.Tensor, temperature: float) -> list[float]:
    powers = [math.exp(float(value) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def _naive_kl(left: list[float], right: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(left, right, strict=True))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_kl_over_the_whole_vocabulary_is_the_textbook_sum(
    logits: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    student, teacher = logits
    opinion = top_k(teacher, VOCABULARY, temperature)
    naive = [
        temperature**2 * _naive_kl(_probabilities(t, temperature), _probabilities(s, temperature))
        for s, t in zip(student, teacher, strict=True)
    ]
    assert forward_kl(student, opinion, temperature).tolist() == pytest.approx(naive, rel=1e-4)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_a_cut_opinion_counts_the_rest_as_one_token(
    logits: tuple[torch.Tensor, torch.Tensor], k: int
) -> None:
    student, teacher = logits
    naive = []
    for s_row, t_row in zip(student, teacher, strict=True):
        s, t = _probabilities(s_row, 1.0), _probabilities(t_row, 1.0)
        best = sorted(range(VOCABULARY), key=lambda n: -t[n])[:k]
        cut = [[p[n] for n in best] + [1 - sum(p[n] for n in best)] for p in (t, s)]
        naive.append(_naive_kl(*cut))
    found = forward_kl(student, top_k(teacher, k, 1.0), 1.0)
    assert found.tolist() == pytest.approx(naive, rel=1e-3)
    whole = forward_kl(student, top_k(teacher, VOCABULARY, 1.0), 1.0)
    assert bool((found <= whole + 1e-5).all())


def test_an_opinion_larger_than_the_vocabulary_is_the_vocabulary() -> None:
    opinion = top_k(torch.zeros(1, 4), 99, 1.0)
    assert opinion.ids.shape == (1, 4)
    assert opinion.rest.tolist() == [-math.inf]
    assert forward_kl(torch.zeros(1, 4), opinion, 1.0).tolist() == pytest.approx([0.0], abs=1e-6)


def test_the_probability_of_a_token_is_nothing_outside_the_top_k() -> None:
    opinion = top_k(torch.tensor([[0.0, 2.0, 1.0, -9.0]]), 2, 1.0)
    found = [float(probability_of(opinion, torch.tensor([token]))) for token in range(4)]
    exact = torch.tensor([0.0, 2.0, 1.0, -9.0]).softmax(-1).tolist()
    assert found == pytest.approx([0.0, exact[1], exact[2], 0.0], abs=1e-6)


def test_the_gradient_of_kl_is_the_difference_of_probabilities(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    student, teacher = logits[0].requires_grad_(), logits[1]
    forward_kl(student, top_k(teacher, VOCABULARY, 1.0), 1.0).sum().backward()
    expected = student.softmax(-1) - teacher.softmax(-1)
    assert student.grad is not None
    assert torch.allclose(student.grad, expected, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_the_generalized_divergence_is_the_papers(
    logits: tuple[torch.Tensor, torch.Tensor], beta: float
) -> None:
    student, teacher = logits
    naive = []
    for s_row, t_row in zip(student, teacher, strict=True):
        s, t = _probabilities(s_row, 1.0), _probabilities(t_row, 1.0)
        mixed = [beta * p + (1 - beta) * q for p, q in zip(t, s, strict=True)]
        if beta in (0.0, 1.0):
            naive.append(_naive_kl(t, s) if beta == 0 else _naive_kl(s, t))
        else:
            naive.append(beta * _naive_kl(t, mixed) + (1 - beta) * _naive_kl(s, mixed))
    found = generalized_jsd(student, teacher, beta, 1.0)
    assert found.tolist() == pytest.approx(naive, rel=1e-4)


def test_a_beta_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        generalized_jsd(torch.zeros(1, 2), torch.zeros(1, 2), 1.5, 1.0)


def test_the_mean_is_weighted_and_of_nothing_zero() -> None:
    values = torch.tensor([1.0, 5.0, 100.0])
    assert weighted_mean(values, torch.tensor([3.0, 1.0, 0.0])).item() == pytest.approx(2.0)
    assert weighted_mean(values, torch.zeros(3)).item() == 0.0


def test_top_k_keeps_the_likeliest() -> None:
    opinion = top_k(torch.tensor([[0.0, 2.0, 1.0, -9.0]]), 2, 1.0)
    assert isinstance(opinion, TopK)
    assert opinion.ids.tolist() == [[1, 2]]
    kept = float(opinion.log_probs.exp().sum() + opinion.rest.exp().sum())
    assert kept == pytest.approx(1.0, abs=1e-5)
