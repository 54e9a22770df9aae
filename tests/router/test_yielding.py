"""Which sequences a step is for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.yielding import Running, Step, urgent_step

URGENT, LATER = 0, 4
BUDGET = 2048


def prompt(urgency: int, tokens: int) -> Running:
    return Running(urgency, tokens, prompt=True)


def decode(urgency: int) -> Running:
    return Running(urgency, 1, prompt=False)


def test_nobody_gives_way_to_nobody() -> None:
    assert urgent_step([], [], BUDGET) is None
    assert urgent_step([prompt(LATER, 9000), decode(LATER)], [], BUDGET) is None
    assert urgent_step([decode(URGENT), prompt(LATER, 9000)], [], BUDGET) is None, (
        "who decodes is served anyway"
    )
    assert urgent_step([decode(LATER)], [(LATER, 500)], BUDGET) is None


def test_an_urgent_prompt_that_waits_takes_the_next_step() -> None:
    running = [prompt(LATER, 9000), decode(URGENT), decode(LATER)]
    assert urgent_step(running, [(URGENT, 1200)], BUDGET) == Step(frozenset({1}), 1201)
    assert urgent_step(running, [(URGENT, 9000)], BUDGET) == Step(frozenset({1}), BUDGET)


def test_an_urgent_prompt_under_way_keeps_the_steps() -> None:
    running = [prompt(LATER, 9000), prompt(URGENT, 5000), decode(URGENT)]
    assert urgent_step(running, [(LATER, 800)], BUDGET) == Step(frozenset({1, 2}), BUDGET)


def test_a_short_rest_goes_alone() -> None:
    running = [prompt(URGENT, 90), prompt(URGENT, 4000), decode(URGENT), decode(LATER)]
    step = urgent_step(running, [(URGENT, 3000)], BUDGET)
    assert step == Step(frozenset({0, 2}), 91)


@given(
    st.lists(st.builds(Running, st.integers(0, 3), st.integers(1, 5000), st.booleans())),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5000))).map(sorted),
)
def test_the_most_urgent_work_is_never_left_out(
    running: list[Running], waiting: list[tuple[int, int]]
) -> None:
    running = [r if r.prompt else Running(r.urgency, 1, False) for r in running]
    step = urgent_step(running, waiting, BUDGET)
    if step is None:
        return
    urgencies = [r.urgency for r in running if r.prompt] + [urgency for urgency, _ in waiting[:1]]
    left_out = [r for i, r in enumerate(running) if i not in step.members]
    assert left_out
    assert all(running[i].urgency <= min(urgencies) for i in step.members)
    assert all(r.prompt or r.urgency > min(urgencies) for r in left_out)
    decodes = sum(1 for i in step.members if not running[i].prompt)
    assert step.budget <= max(BUDGET, decodes)
    assert step.budget > decodes or decodes >= BUDGET, "a prompt moves on"
