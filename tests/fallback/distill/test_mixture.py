"""Which text a step reads, and mixtures that make no sense."""

from collections import Counter

import pytest

from fallback.distill.mixture import GROUND_TRUTH_ONLY, Mixture
from fallback.distill.plan import DistillationPlan, Progress, rate_factor


def test_kinds_come_in_their_shares_and_the_same_after_a_restart() -> None:
    mixture = Mixture(sequence_share=0.3, on_policy_share=0.2)
    kinds = [mixture.kind(5, step) for step in range(4000)]
    assert kinds == [mixture.kind(5, step) for step in range(4000)]
    shares = {name: count / 4000 for name, count in Counter(kinds).items()}
    assert shares == pytest.approx({"truth": 0.5, "teacher": 0.3, "student": 0.2}, abs=0.03)


def test_ground_truth_alone_asks_no_teacher() -> None:
    assert not GROUND_TRUTH_ONLY.needs_teacher
    assert {GROUND_TRUTH_ONLY.kind(1, step) for step in range(50)} == {"truth"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kl": -1.0},
        {"sequence_share": 0.7, "on_policy_share": 0.6},
        {"temperature": 0.0},
        {"top_k": 0},
        {"beta": 2.0},
        {"kl": 0.0, "truth": 0.0},
        {"kl": 0.0, "sequence": 0.0},
    ],
)
def test_a_mixture_that_teaches_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Mixture(**wrong)  # type: ignore[arg-type]


def test_the_rate_warms_up_and_comes_down() -> None:
    plan = DistillationPlan(steps=100, warmup_steps=10)
    rates = [rate_factor(step, plan) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


def test_progress_survives_as_plain_data() -> None:
    progress = Progress(step=3, tokens=9, seconds=1.5, positions={"truth": (2, 1)})
    progress.work.needed = 7.0
    other = Progress()
    other.load_state_dict(progress.state_dict())
    assert other == progress
