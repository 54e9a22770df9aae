"""vLLM's log-probabilities become the wire's."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.scoring import FLOOR, scored_output, scored_prompt
from deployments.wire import Scored


@dataclass
class Found:
    """vLLM's Logprob."""

    logprob: float
    rank: int | None
    decoded_token: str | None


def decode(ids: list[int]) -> str:
    return f"<{ids[0]}>"


def test_the_likeliest_come_first_and_the_chosen_one_among_them_only_by_its_rank() -> None:
    position = {9: Found(-3.0, 5, "i"), 1: Found(-0.1, 1, "a"), 2: Found(-1.0, 2, "b")}
    (scored,) = scored_output([9], [position], 2, decode)
    assert scored == Scored(
        9, "i", -3.0, [Scored(1, "a", -0.1, rank=1), Scored(2, "b", -1.0, rank=2)], rank=5
    )


def test_without_alternatives_only_the_chosen_one_is_told() -> None:
    scored = scored_output([1], [{1: Found(-0.1, 1, None)}], 0, decode)
    assert scored == [Scored(1, "<1>", -0.1, rank=1)]


def test_a_probability_of_zero_is_a_number_that_json_has() -> None:
    position = {1: Found(float("-inf"), 1, "a")}
    (scored,) = scored_output([1], [position], 1, decode)
    assert scored.logprob == FLOOR == scored.top[0].logprob == -9999.0


def test_the_prompts_first_token_has_no_log_probability() -> None:
    first, second = scored_prompt([4, 5], [None, {5: Found(-2.0, 3, "e")}], 0, decode)
    assert first == Scored(4, "<4>", None)
    assert second == Scored(5, "e", -2.0, rank=3)
