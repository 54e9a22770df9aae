"""A rollout's steps and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from weir.rollouts.course import ENDED, Rollout, advanced, ended
from weir.rollouts.findings import Finding, Verdict
from weir.rollouts.split import is_chosen, place_of
from weir.settings.rollout import JudgeSettings, RolloutSettings

WAIT = Verdict("wait", ())
PROMOTE = Verdict("promote", ())
BACK = Verdict("roll back", (), "tpot")
DOUBT = Verdict("wait", (Finding("ttft", 30, 0.7, 0.5, 4.0, 0.1, False, False),))


def _rollout(**settings: object) -> Rollout:
    return Rollout("r", "m", "next", RolloutSettings.model_validate(settings), 0.0, 0.0)


def test_its_share_grows_step_by_step() -> None:
    rollout = _rollout(steps=[0.1, 0.2, 0.5], step_s=10)
    shares = []
    for now_s in range(0, 50, 5):
        rollout = advanced(rollout, WAIT, float(now_s))
        shares.append(rollout.share)
    assert shares == [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_it_stays_where_it_is_while_there_is_doubt() -> None:
    rollout = advanced(_rollout(step_s=10), DOUBT, 60.0)
    assert rollout.step == 0
    assert "ttft may be worse" in rollout.reason
    assert advanced(rollout, WAIT, 61.0).step == 1


def test_its_ends() -> None:
    back = advanced(_rollout(), BACK, 7.0)
    assert (back.state, back.share, back.mirror, back.ended_s) == ("rolled back", 0.0, 0.0, 7.0)
    assert "tpot" in back.reason
    promoted = advanced(_rollout(), PROMOTE, 7.0)
    assert (promoted.state, promoted.share) == ("promoted", 1.0)
    assert advanced(promoted, BACK, 8.0) == promoted
    with pytest.raises(ValueError, match="promoted already"):
        ended(promoted, "aborted", "by hand", 9.0)


def test_one_that_is_to_be_promoted_by_hand_is_still_rolled_back() -> None:
    held = advanced(_rollout(promote="hold"), PROMOTE, 7.0)
    assert (held.state, held.share) == ("held", 0.01)
    assert advanced(held, WAIT, 1e9) == held
    assert advanced(held, BACK, 8.0).state == "rolled back"


def test_without_a_verdict_in_time() -> None:
    assert advanced(_rollout(most_s=100), WAIT, 100.0).state == "rolled back"
    held = advanced(_rollout(most_s=100, on_timeout="hold"), WAIT, 100.0)
    assert (held.state, held.reason) == ("held", "no verdict in time")


@given(st.lists(st.sampled_from([WAIT, PROMOTE, BACK, DOUBT]), max_size=30))
def test_an_end_is_final_and_shares_never_shrink_before(verdicts: list[Verdict]) -> None:
    rollout, last = _rollout(step_s=1), 0.0
    for number, verdict in enumerate(verdicts):
        before, rollout = rollout, advanced(rollout, verdict, 2.0 * number)
        if before.state in ENDED:
            assert rollout == before
        elif rollout.state not in ENDED:
            assert rollout.share >= last
            last = rollout.share


def test_who_is_chosen_stays_chosen_and_everybody_is_as_likely() -> None:
    sessions = [f"session-{n}" for n in range(4000)]
    small = {s for s in sessions if is_chosen(s, "r", 0.05)}
    large = {s for s in sessions if is_chosen(s, "r", 0.25)}
    assert small < large
    assert 0.03 < len(small) / 4000 < 0.07
    assert 0.22 < len(large) / 4000 < 0.28
    assert not any(is_chosen(s, "r", 0.0) for s in sessions)
    assert all(is_chosen(s, "r", 1.0) for s in sessions)
    assert place_of("a", "r") != place_of("a", "another rollout")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": []}, "at least one share"),
        ({"steps": [0.5, 0.1]}, "do not shrink"),
        ({"judge": {"disagreement": 0.1}}, "needs mirrored requests"),
        ({"judge": {"ttft_ratio": 0.9}}, "greater than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RolloutSettings.model_validate(wrong)
    assert replace(_rollout(), step=1).share == 0.05
    assert JudgeSettings().disagreement is None
