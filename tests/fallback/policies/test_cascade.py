"""When a student's answer may stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import CascadeRule, Verdict, Watch

RULE = CascadeRule(first_tokens=4, threshold=-0.5)


def test_a_sure_answer_is_kept_once_enough_is_seen() -> None:
    watch = Watch(RULE)
    assert watch.add([-0.1, -0.1, -0.1]) is Verdict.HOLD
    assert watch.add([-0.1]) is Verdict.KEEP
    assert watch.mean_logprob == -0.1


def test_a_doubtful_answer_is_given_up_as_soon_as_that_is_certain() -> None:
    assert Watch(RULE).add([-2.5]) is Verdict.ESCALATE


def test_a_short_answer_is_judged_by_what_it_has() -> None:
    assert Watch(RULE).add([-0.4], ended=True) is Verdict.KEEP
    assert Watch(RULE).add([-0.6], ended=True) is Verdict.ESCALATE
    assert Watch(RULE).add([], ended=True) is Verdict.ESCALATE


logprobs = st.lists(st.floats(-3, 0, width=32), min_size=1, max_size=12)


@given(logprobs, st.integers(1, 8), st.floats(-2, -0.01), st.data())
def test_pieces_do_not_matter(
    values: list[float], first_tokens: int, threshold: float, data: st.DataObject
) -> None:
    """However the answer is cut into pieces, the verdict is that of the mean."""
    rule = CascadeRule(first_tokens, threshold)
    watch, verdict, rest = Watch(rule), Verdict.HOLD, values
    while rest and verdict is Verdict.HOLD:
        size = data.draw(st.integers(1, len(rest)))
        piece, rest = rest[:size], rest[size:]
        verdict = watch.add(piece, ended=not rest)
    seen = values[:first_tokens]
    mean = sum(seen) / len(seen)
    if abs(mean - threshold) > 1e-6:
        assert verdict is (Verdict.KEEP if mean >= threshold else Verdict.ESCALATE)
