"""weir's own policy: the cheapest that does the work, with room for what comes."""

from dataclasses import replace

import weir.autoscaling.policies  # noqa: F401 - registers them
from tests.weir.autoscaling.fleets import LARGE, SMALL, SPOT_A, SPOT_B, model
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Backlog, Demand, Sample, Student, Window


def decide(state, now_s=0.0, before=None, **params):
    return build_policy("weir", params).decide(state, now_s, before)


def usd(decision, pools):
    return sum(decision.targets[pool.name] * pool.usd_per_hour for pool in pools)


def test_kinds_are_mixed_where_that_is_cheaper():
    pools = (LARGE, SMALL)
    both = usd(decide(model(5e4, pools)), pools)
    assert both <= usd(decide(model(5e4, (LARGE,))), (LARGE,))
    assert both <= usd(decide(model(5e4, (SMALL,))), (SMALL,))


def test_spot_is_taken_but_not_all_of_one_place():
    pools = (LARGE, SPOT_A, SPOT_B)
    decision = decide(model(4e5, pools))
    assert usd(decision, pools) < usd(decide(model(4e5, (LARGE,))), (LARGE,))
    assert decision.targets["spot-a"] > 0
    assert decision.targets["spot-b"] > 0
    told = [other.verdict for other in decision.explanation.alternatives]
    assert any("on demand only" in verdict for verdict in told)


def test_the_student_is_a_priced_alternative():
    cheap, dear = Student(1e-9, 0.3), Student(10.0, 0.3)
    assert 0.2 < decide(model(2e5, student=cheap)).spill_share <= 0.3 + 1e-9
    assert decide(model(2e5, student=dear)).spill_share == 0


def test_less_is_done_only_after_a_while():
    high = decide(model(3e5), 0.0)
    soon = decide(model(3e4), 60.0, high.state)
    late = decide(model(3e4), 1e4, soon.state)
    assert soon.targets == high.targets
    assert late.targets["large"] < high.targets["large"]


def test_what_waits_is_drained():
    calm = decide(model(3e4)).targets["large"]
    waiting = decide(model(3e4, waiting_tokens=5e6)).targets["large"]
    assert waiting > calm


def test_a_backlog_of_batches_gets_what_its_windows_need_beyond_the_room():
    calm = model(3e4)
    idle = replace(calm, classes={})
    small = Backlog(10, 3600, (Window(3600, 1e4, 1e4),))
    large = Backlog(10**6, 3600, (Window(3600, 4e8, 1e8),))
    assert decide(replace(calm, backlog=small)).targets == decide(calm).targets
    assert decide(replace(calm, backlog=large)).targets["large"] > decide(calm).targets["large"]
    assert decide(replace(idle, backlog=large)).targets["large"] > 0


def test_batch_work_with_time_needs_less_than_urgent_work():
    tokens = 3e6
    urgent = model(3e4, waiting_tokens=tokens)
    batch = replace(
        model(3e4),
        classes={
            **model(3e4).classes,
            "batch": Demand(waiting_tokens=tokens, deferrable_s=6 * 3600.0),
        },
    )
    assert decide(batch).targets["large"] < decide(urgent).targets["large"]


def test_a_season_is_foretold():
    day = 86_400.0
    history = tuple(
        Sample(600.0 * n, *((2e5, 4e4) if (600.0 * n) % day == 4200 else (3e4, 6e3)))
        for n in range(151)
    )
    state = replace(
        model(3e4, (replace(LARGE, start_s=600.0),)),
        history=history,
    )
    # At 25 hours, ten minutes before what was a peak a day ago.
    assert history[-1].at_s % day == 3600
    ahead = decide(state, checked_s=3600.0, season_s=day)
    flat = decide(state, checked_s=0.0)
    assert ahead.targets["large"] > flat.targets["large"]


def test_what_cannot_be_done_is_said():
    decision = decide(model(1e7, (replace(LARGE, most=2),)))
    assert decision.targets == {"large": 2}
    assert "cannot be done" in decision.explanation.because
    assert decision.explanation.seen["short"] > 0.9


def test_one_kind_goes_only_when_the_other_serves():
    dear = replace(LARGE, name="dear", usd_per_hour=30.0)
    before = decide(model(1e5, (dear, LARGE), {"dear": 5}))
    assert before.targets["dear"] == 5
    assert before.targets["large"] > 0
    after = decide(model(1e5, (dear, LARGE), {"dear": 5, "large": before.targets["large"]}))
    assert after.targets["dear"] == 0
