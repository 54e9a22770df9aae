"""Which leg comes next: the rules alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.plan import (
    CircuitOpenError,
    Course,
    ImpatientError,
    LegEnd,
    Loss,
    MoveBudget,
    Next,
    Outcome,
    Step,
    after_legs,
    final_error,
    next_step,
)
from fallback.cascade import CascadeRule
from fallback.policies import CASCADE, COST, FAILURE, LONG_TAIL, OVERLOAD, Kind, RequestFacts
from weir.errors import (
    BadRequestError,
    NoReplicaError,
    OverloadedError,
    RateLimitError,
    ReplicaFailedError,
    WeirError,
)

FACTS = RequestFacts("t", "standard")
WATCHED = Step("m", watched=True)
END = Step("m")


@dataclass
class Rules:
    """What the policies say."""

    kind: Kind | None = None
    allowed: set[str] = field(default_factory=lambda: {FAILURE, OVERLOAD})
    is_broken: bool = False

    def at_arrival(self, facts: RequestFacts) -> Kind | None:
        return self.kind

    def allows(self, kind: Kind, facts: RequestFacts) -> bool:
        return kind in self.allowed


def _course(**rules: object) -> Course:
    return Course("m", "s", Rules(**rules))  # type: ignore[arg-type]


def _next(course: Course, *outcomes: Outcome) -> Step | None:
    return next_step(course, FACTS, outcomes, 1)


def test_a_model_without_a_student_is_asked_once() -> None:
    course = Course("m")
    assert _next(course) == END
    assert _next(course, Outcome(END, NoReplicaError("none"))) is None


@pytest.mark.parametrize("kind", [LONG_TAIL, COST])
def test_what_a_request_is_decides_first(kind: Kind) -> None:
    course = _course(kind=kind)
    first = _next(course)
    assert first == Step("s", spill=kind)
    failed = Outcome(first, NoReplicaError("no student"))
    if kind == COST:
        assert _next(course, failed) is None
        assert isinstance(final_error(course, [failed]), RateLimitError)
    else:
        assert _next(course, failed) == WATCHED


@pytest.mark.parametrize(
    ("error", "admitted", "kind"),
    [
        (ReplicaFailedError("gone"), True, FAILURE),
        (NoReplicaError("none"), False, FAILURE),
        (OverloadedError("queue full"), False, OVERLOAD),
        (OverloadedError("engine down"), True, FAILURE),
        (ImpatientError("waited"), False, OVERLOAD),
        (CircuitOpenError("open"), False, FAILURE),
    ],
)
def test_why_a_failed_attempt_goes_to_the_student(
    error: WeirError, admitted: bool, kind: Kind
) -> None:
    course = _course()
    spilled = _next(course, Outcome(WATCHED, error, admitted))
    assert spilled == Step("s", spill=kind)
    both = (Outcome(WATCHED, error, admitted), Outcome(spilled, NoReplicaError("no student")))
    back = isinstance(error, ImpatientError | CircuitOpenError)
    assert _next(course, *both) == (END if back else None)
    if not back:
        assert final_error(course, both) is error, "what the model said is what the client hears"


def test_the_requests_own_errors_are_final() -> None:
    assert _next(_course(), Outcome(WATCHED, BadRequestError("no"), True)) is None


def test_who_may_not_spill_goes_back_to_the_queue() -> None:
    course = _course(allowed=set())
    assert _next(course, Outcome(WATCHED, ImpatientError("waited"))) == END
    assert _next(course, Outcome(WATCHED, ReplicaFailedError("gone"), True)) is None


def test_a_cascade_holds_the_students_answer_back() -> None:
    rule = CascadeRule(2, -0.5)
    course = Course("m", "s", Rules(allowed={CASCADE}), rule)
    held = Step("s", hold_back=rule)
    assert _next(course) == held
    assert next_step(course, FACTS, (), 2) == WATCHED, "several choices are not held back"
    assert _next(course, Outcome(held, doubtful=True)) == WATCHED
    assert _next(course, Outcome(held, NoReplicaError("none"))) == WATCHED
    assert _next(course, Outcome(held)) is None


_ENDS = st.lists(
    st.builds(LegEnd, st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(Loss)),
    min_size=1,
)


@given(_ENDS)
def test_no_request_walks_through_the_fleet(ends: list[LegEnd]) -> None:
    following = after_legs(ends, 3, 64)
    tail = ends[-9:]
    stuck = ends[-3:]
    if len(tail) == 9 and not any(end.tokens for end in tail):
        assert following is not Next.MOVE
    if len(stuck) == 3 and not any(end.tokens or end.loss is Loss.GONE for end in stuck):
        assert following is not Next.MOVE
    if ends[-1].tokens and len(ends) < 64:
        assert following is Next.MOVE, "a stream that makes progress goes on"


def test_whose_fault_it_is() -> None:
    def after(*legs: tuple[str, int, Loss], attempts: int = 3) -> Next:
        return after_legs([LegEnd(*leg) for leg in legs], attempts, 64)

    up, stuck, gone = Loss.NONE, Loss.STUCK, Loss.GONE
    assert after(("a", 0, up)) is Next.MOVE
    assert after(("a", 0, up), ("b", 0, up)) is Next.OWN_FAULT
    assert after(("a", 0, stuck), ("b", 0, stuck)) is Next.MOVE
    assert after(("a", 0, stuck), ("b", 0, stuck), ("c", 0, stuck)) is Next.OWN_FAULT
    assert after(("a", 0, stuck), attempts=1) is Next.GIVE_UP
    assert after(*[("a", 1, stuck)] * 64) is Next.GIVE_UP
    walked = [(name, 0, gone) for name in "abcdefghi"]
    assert after(*walked[:8]) is Next.MOVE, "who waited in engines that were killed is innocent"
    assert after(*walked) is Next.OWN_FAULT


def test_a_fleet_that_loses_everything_is_not_given_it_over_and_over() -> None:
    budget = MoveBudget(window_s=10.0, per_stream=2.0, least=10)
    moved = sum(budget.spend(0.0, 100) for _ in range(1000))
    assert moved == 200
    assert not budget.spend(9.0, 100)
    assert budget.spend(10.0, 100), "the window has passed"
    small = MoveBudget(least=10)
    assert sum(small.spend(0.0, 0) for _ in range(50)) == 10


def test_moves_that_ended_well_are_not_held_against_others() -> None:
    """Fifty streams lose their replica, some of them twice, and the ones that are done first leave
    the others as much as they had; the next loss within the window finds the budget whole."""
    budget = MoveBudget(window_s=10.0, per_stream=2.0, least=10)
    for loss in range(3):
        now_s = float(loss)
        assert all(budget.spend(now_s, 50) for _ in range(50))
        for open_streams in range(50, 20, -1):
            budget.give_back(1)
            assert budget.allows(now_s, open_streams - 1)
        assert all(budget.spend(now_s, 20) for _ in range(20)), "the second time"
        assert not budget.allows(now_s, 20), "but not a third time"
        budget.give_back(40)
    assert sum(budget.spend(3.0, 0) for _ in range(50)) == 10
