"""The judge: what is compared with what, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from weir.rollouts.judge import Judge
from weir.rollouts.samples import Arm, Pairing, Sample
from weir.settings.rollout import JudgeSettings, PerplexitySettings

ALL = JudgeSettings(disagreement=0.05)


def _answers(arm: Arm, count: int, seed: int, slower: float = 1.0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [
        Sample(
            arm,
            float(number),
            ttft_s=0.4 * slower * float(rng.lognormal(0, 0.3)),
            tpot_s=0.02 * slower * float(rng.lognormal(0, 0.1)),
            output_tokens=100 + int(rng.integers(20)),
            valid=True,
            agrees=True if arm == "candidate" else None,
        )
        for number in range(count)
    ]


def _judged(candidate: list[Sample], live: list[Sample], settings: JudgeSettings = ALL) -> Judge:
    judge = Judge(settings)
    for pair in zip(candidate, live, strict=True):
        judge.observe(pair)
    return judge


def test_an_equal_one_is_promoted() -> None:
    verdict = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2)).verdict()
    assert verdict.action == "promote"
    assert all(f.good and not f.bad for f in verdict.findings)


@pytest.mark.parametrize(
    ("criterion", "change"),
    [
        ("ttft", {"ttft_s": 2.0}),
        ("tpot", {"tpot_s": 1.0}),
        ("longer", {"output_tokens": 900}),
        ("shorter", {"output_tokens": 3}),
        ("errors", {"failed": True}),
        ("format", {"valid": False}),
        ("disagreement", {"agrees": False}),
    ],
)
def test_one_criterion_is_enough_to_roll_back(criterion: str, change: dict[str, object]) -> None:
    spoilt = [
        replace(sample, **change) if number % 3 == 0 or criterion in ("ttft", "tpot") else sample
        for number, sample in enumerate(_answers("candidate", 600, 3))
    ]
    if criterion in ("longer", "shorter"):
        spoilt = [replace(sample, **change) for sample in spoilt]
    verdict = _judged(spoilt, _answers("live", 600, 4)).verdict()
    assert verdict.action == "roll back"
    assert verdict.because == criterion


def test_few_answers_decide_nothing() -> None:
    judge = _judged(_answers("candidate", 5, 1), _answers("live", 5, 2))
    assert judge.verdict().action == "wait"
    assert Judge(ALL).verdict().action == "wait"


def test_it_is_not_promoted_before_it_has_answered_enough() -> None:
    patient = ALL.model_copy(update={"least_answers": 901})
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2), patient)
    assert judge.verdict().action == "wait"
    judge.observe(_answers("candidate", 1, 5))
    assert judge.verdict().action == "promote"


def test_a_criterion_that_nobody_asks_for_is_no_reason_to_wait() -> None:
    plain = [
        [replace(s, valid=None, agrees=None) for s in _answers(arm, 900, n)]
        for n, arm in enumerate(("candidate", "live"))
    ]
    assert _judged(*plain).verdict().action == "promote"


def test_pairs_are_of_one_stratum_and_of_one_time() -> None:
    pairing = Pairing(within_s=10.0)
    live = Sample("live", 0.0, "chat")
    assert pairing.add(live) is None
    assert pairing.add(Sample("candidate", 1.0, "batch")) is None
    candidate = Sample("candidate", 2.0, "chat")
    assert pairing.add(candidate) == (candidate, live)
    assert pairing.add(Sample("candidate", 3.0, "chat")) is None, "each is used once"
    late = Sample("live", 20.0, "chat")
    assert pairing.add(late) is None, "the candidate's is too old"
    last = Sample("candidate", 21.0, "chat")
    assert pairing.add(last) == (last, late)


SCORED = JudgeSettings(perplexity=PerplexitySettings(model="third", worse_by=0.1))


def _scored(nats: Sequence[float]) -> list[Sample]:
    """Mirrored answers, so many nats per token less likely than the live ones."""
    return [
        Sample("candidate", float(number), "mirrored", unlikelier=each)
        for number, each in enumerate(nats)
    ]


def test_answers_that_another_model_finds_less_likely_roll_back() -> None:
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2), SCORED)
    judge.observe(_scored(np.random.default_rng(1).normal(np.log(1.3), 0.3, 800).tolist()))
    verdict = judge.verdict()
    assert (verdict.action, verdict.because) == ("roll back", "perplexity")
    found = next(f for f in verdict.findings if f.criterion == "perplexity")
    assert found.samples == 800
    assert found.observed == pytest.approx(0.3, abs=0.05)
    assert found.allowed == pytest.approx(0.1)


def test_nonsense_now_and_then_rolls_back_though_the_median_is_the_same() -> None:
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2), SCORED)
    judge.observe(_scored([9.0 if number % 10 == 0 else 0.0 for number in range(1000)]))
    assert judge.verdict().because == "perplexity"


def test_answers_as_likely_as_the_live_ones_are_good() -> None:
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2), SCORED)
    judge.observe(_scored(np.random.default_rng(2).normal(0.0, 0.3, 800).tolist()))
    assert judge.verdict().action == "promote"


def test_nothing_is_promoted_while_nothing_was_scored() -> None:
    """The model that judges may be away: unlike a request for JSON, that is no reason to go on."""
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2), SCORED)
    assert judge.verdict().action == "wait"


def test_scored_answers_count_only_where_they_are_asked_for() -> None:
    judge = _judged(_answers("candidate", 900, 1), _answers("live", 900, 2))
    judge.observe(_scored([9.0] * 500))
    assert judge.verdict().action == "promote"
    assert "perplexity" not in {f.criterion for f in judge.verdict().findings}
