"""Which leg comes next: pure rules over the outcomes so far.

There are two questions. *Which model answers?* is asked for the whole request, at its start and
after each attempt that nobody has seen anything of: :func:`next_step`. *Does a stream that broke go
on?* is asked for one choice of an attempt, after each of its legs:
:func:`after_legs`. Hedging and
prefill/decode hand-off are further answers to the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Protocol

from deployments.gateway.accounts import BudgetSpillError
from fallback.cascade import CascadeRule
from fallback.policies import CASCADE, COST, FAILURE, OVERLOAD, Kind, RequestFacts
from router.admission import SpilledError
from weir.errors import (
    NoReplicaError,
    OverloadedError,
    RateLimitError,
    ReplicaFailedError,
    WeirError,
)


class ImpatientError(OverloadedError):
    """A request waited at the gate for as long as it should, or until the pool broke."""


class CircuitOpenError(OverloadedError):
    """The model's replicas are not to be asked now."""


class AdapterBusyError(OverloadedError):
    """All slots for LoRA adapters are in use where the request was sent."""

    code = "adapter_busy"


#: Why the model answers without the adapter that was asked for.
ADAPTER: Final = "adapter"
#: Why a candidate version answers: it is tried.
CANARY: Final = "canary"
Spill = Kind | Literal["adapter", "canary"]


@dataclass(frozen=True, slots=True)
class Step:
    """An attempt to be made: all choices of a request by one model.

    ``spill``: why it is not the model, or the adapter, that was asked for. ``watched``: the attempt
    needs a pass of the model's circuit breaker, may spill from the queue, and waits only so long,
    because there is another step behind it. ``hold_back``: nothing is shown until the answer is
    good enough.
    """

    model: str
    spill: Spill | None = None
    watched: bool = False
    hold_back: CascadeRule | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went. ``error`` is None if it answered; ``admitted``: it got past the queue;
    ``doubtful``: it was held back, and not good enough."""

    step: Step
    error: WeirError | None = None
    admitted: bool = False
    doubtful: bool = False


class SpillRules(Protocol):
    """What the policies of a model with a student say (:class:`fallback.policies.SpillPolicy`)."""

    def at_arrival(self, facts: RequestFacts) -> Kind | None: ...

    def allows(self, kind: Kind, facts: RequestFacts) -> bool: ...

    @property
    def is_broken(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Course:
    """Who can answer for a model: itself, and its student if it has one. ``bare``: the model may
    answer without the adapter that was asked for, where that has no slot. ``candidate``: another
    version of it that is tried with this request."""

    model: str
    student: str | None = None
    rules: SpillRules | None = None
    cascade: CascadeRule | None = None
    bare: bool = False
    candidate: str | None = None


def next_step(
    course: Course, facts: RequestFacts, outcomes: Sequence[Outcome], choices: int
) -> Step | None:
    """The next attempt, or None when there is none: then the error of :func:`final_error` stands.

    Asked only while the client has been sent nothing.
    """
    if course.candidate is not None:
        if not outcomes:
            return Step(course.candidate, spill=CANARY)
        if outcomes[0].error is None:
            return None
        # It has failed: from here on it is as if nobody had been asked.
        outcomes = outcomes[1:]
    if outcomes and isinstance(outcomes[-1].error, AdapterBusyError):
        return Step(course.model, spill=ADAPTER) if course.bare else None
    if course.rules is None or course.student is None:
        return None if outcomes else Step(course.model)
    if not outcomes:
        return _first(course, course.rules, facts, choices)
    last = outcomes[-1]
    if last.error is None and not last.doubtful:
        return None
    watched = Step(course.model, watched=True)
    if last.step.model == course.student:
        return _after_student(course, outcomes, watched)
    if not last.step.watched:
        return None
    return _after_teacher(course, course.rules, facts, last)


def _first(course: Course, rules: SpillRules, facts: RequestFacts, choices: int) -> Step:
    assert course.student is not None
    kind = rules.at_arrival(facts)
    if kind is not None:
        return Step(course.student, spill=kind)
    if course.cascade is not None and choices == 1 and rules.allows(CASCADE, facts):
        return Step(course.student, hold_back=course.cascade)
    return Step(course.model, watched=True)


def _after_student(course: Course, outcomes: Sequence[Outcome], watched: Step) -> Step | None:
    spill = outcomes[-1].step.spill
    if spill == COST:
        return None
    if len(outcomes) == 1:
        return watched
    # The student was asked in the model's place. A request that only left the queue for it goes
    # back, this time to the end; so does one that the circuit kept out, as nobody else is left.
    before = outcomes[-2].error
    back = isinstance(before, SpilledError | ImpatientError | CircuitOpenError)
    return Step(course.model) if back else None


def _after_teacher(
    course: Course, rules: SpillRules, facts: RequestFacts, last: Outcome
) -> Step | None:
    assert course.student is not None
    error = last.error
    if isinstance(error, BudgetSpillError):
        return Step(course.student, spill=COST)
    if not isinstance(error, OverloadedError | ReplicaFailedError):
        return None
    kind = spill_kind(error, last.admitted, rules.is_broken)
    if isinstance(error, CircuitOpenError) or rules.allows(kind, facts):
        return Step(course.student, spill=kind)
    back = isinstance(error, SpilledError | ImpatientError)
    return Step(course.model) if back else None


def spill_kind(error: WeirError, admitted: bool, broken: bool) -> Kind:
    """The reason under which a request that failed with ``error`` goes to the student."""
    if isinstance(error, NoReplicaError | ReplicaFailedError | CircuitOpenError):
        return FAILURE
    if isinstance(error, ImpatientError):
        return FAILURE if broken else OVERLOAD
    # Refused at the gate, or by a replica whose engine is down.
    return FAILURE if admitted else OVERLOAD


def final_error(course: Course, outcomes: Sequence[Outcome]) -> WeirError | None:
    """The error to answer with when no attempt answered."""
    last = outcomes[-1]
    if last.error is None:
        return None
    if last.step.spill == COST:
        return RateLimitError(
            f"This is beyond what you may spend on {course.model!r}, and its student "
            f"{course.student!r} cannot answer now.",
            retry_after_s=5.0,
        )
    if last.step.model != course.model:
        # What the model itself said is what the client should hear.
        own = [o.error for o in outcomes if o.step.model == course.model and o.error is not None]
        return own[-1] if own else last.error
    return last.error


class Loss(StrEnum):
    """How a replica was lost under a leg. ``NONE``: it is up, and failed on this request.
    ``STUCK``: its engine died, or it stopped answering; a request can do that to it. ``GONE``: its
    process or its connection ended, which a request hardly does."""

    NONE = "none"
    STUCK = "stuck"
    GONE = "gone"


# What a replica that went away whole says against the requests on it, in replicas that got stuck.
_BLAME_OF_GONE = 1.0 / 3.0
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class LegEnd:
    """How one leg of a choice ended early. ``tokens``: how many it had put out."""

    replica_id: str
    tokens: int
    loss: Loss

    @property
    def blame(self) -> float:
        """How much it says against the request."""
        return _BLAME_OF_GONE if self.loss is Loss.GONE else 1.0


class Next(StrEnum):
    """What becomes of a choice whose leg broke. ``OWN_FAULT``: it is the request that fails."""

    MOVE = "move"
    GIVE_UP = "give up"
    OWN_FAULT = "own fault"


def after_legs(ends: Sequence[LegEnd], attempts: int, most_legs: int) -> Next:
    """Whether a choice whose legs ended like that may try another replica.

    A request that no replica can answer must not walk through the fleet. Two replicas that are up
    and fail on it are enough; so are ``attempts`` that get stuck under it one after the other, or
    three times as many that go away: when a replica is killed, requests that still wait in its
    engine are lost with the others, again and again while one replica after the other is. A stream
    that makes progress in between may move until it has had ``most_legs`` legs.
    """
    vain = ends_in_vain(ends)
    failed_on = {end.replica_id for end in vain if end.loss is Loss.NONE}
    if len(failed_on) > 1:
        return Next.OWN_FAULT
    if sum(end.blame for end in vain) >= attempts - _ROUNDING:
        return Next.OWN_FAULT if len({end.replica_id for end in vain}) > 1 else Next.GIVE_UP
    return Next.MOVE if len(ends) < most_legs else Next.GIVE_UP


def ends_in_vain(ends: Sequence[LegEnd]) -> list[LegEnd]:
    """The legs since the last one that put out a token."""
    vain: list[LegEnd] = []
    for end in reversed(ends):
        if end.tokens:
            break
        vain.append(end)
    return vain


@dataclass(frozen=True, slots=True)
class RefusalLimits:
    """Of one tenant, and of all callers together whose key nobody knows: ``at_once`` refusals
    without a wait, and ``per_s`` more in each second. None waits longer than ``longest_s``, and no
    more than ``places`` of all tenants wait."""

    per_s: float = 20.0
    at_once: int = 100
    longest_s: float = 5.0
    places: int = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """``request_timeout_s`` runs from admission; waiting in the queue has a bound of its own for
    each priority class. ``dispatch_attempts``: see :func:`after_legs`. ``resume_wait_s``: so long a
    choice whose replica is lost waits for another one to come up. ``most_legs``: replicas that one
    choice may see in all. ``body_timeout_s``: so long a client may take to send its body.
    ``early_headers_s``: so long after its arrival a stream is opened without any output (None:
    never). ``refuse_unknown_fields``: fields that nobody knows are a 400; else they are ignored.
    ``max_streams``: prompts times choices of one request. ``refusals``: their pace."""

    max_body_bytes: int
    dispatch_attempts: int
    request_timeout_s: float
    resume_wait_s: float = 30.0
    most_legs: int = 64
    body_timeout_s: float = 60.0
    early_headers_s: float | None = None
    refuse_unknown_fields: bool = False
    max_streams: int = 128
    refusals: RefusalLimits = RefusalLimits()


class MoveBudget:
    """Bounds how many streams go to another replica, so that an outage is not made worse.

    In any ``window_s`` seconds, at most ``per_stream`` moves for each stream that is open when it
    is asked, and ``least`` in any case: every stream may follow from a replica that dies, but a
    fleet that loses all it is given is not given it over and over. Moves that came to a good end do
    not count: they are no burden any longer, and the streams that made them are not among the open
    ones either. (Envoy's retry budget, which bounds retries under way by requests in flight, is the
    model.)
    """

    def __init__(self, window_s: float = 10.0, per_stream: float = 2.0, least: int = 10) -> None:
        self._window_s = window_s
        self._per_stream = per_stream
        self._least = least
        self._moves: list[float] = []

    def spend(self, now_s: float, open_streams: int) -> bool:
        """Whether one more move is within the budget; it is then counted."""
        if not self.allows(now_s, open_streams):
            return False
        self._moves.append(now_s)
        return True

    def give_back(self, moves: int) -> None:
        """A stream that moved so often has ended well. The latest ones are taken, which at most
        forgets others' a little later."""
        if moves:
            del self._moves[-moves:]

    def allows(self, now_s: float, open_streams: int) -> bool:
        """The same without counting it."""
        horizon_s = now_s - self._window_s
        if self._moves and self._moves[0] <= horizon_s:
            self._moves = [at_s for at_s in self._moves if at_s > horizon_s]
        return len(self._moves) < max(self._least, self._per_stream * open_streams)
