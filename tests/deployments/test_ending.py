"""How a request ended: every consumer's one source, case by case."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import wire
from deployments.gateway.ending import Cause, ClassLimits, Ending, judge
from deployments.gateway.legs import Attempt, Choice, Leg
from deployments.gateway.outputs import Counts
from deployments.gateway.plan import Step
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from weir.errors import (
    GenerationTimeoutError,
    OverloadedError,
    RateLimitError,
    ReplicaFailedError,
    RequestFailedError,
    WeirError,
)
from weir.settings import ModelSettings, PriceSettings

BEGIN_S, END_S = 100.0, 104.0
LIMITS = ClassLimits({"fast": 1.0}, {"fast": 0.5})
PRICE = PriceSettings(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)
PRICES = PriceLists([ModelSettings(name=name, source="x", price=PRICE) for name in ("m", "s")])


def attempt_of(
    first_s: float | None = 0.5, *outputs: int, model: str = "m", **told: Any
) -> Attempt:
    """Three tokens of prompt; ``outputs``: tokens of each choice, side by side. ``first_s``: after
    the request's arrival."""
    route: Any = None
    choices = [
        Choice(
            number,
            0,
            route,
            wire.Submit(number, "r", [1, 2, 3], wire.Sampling(max_tokens=9)),
            [Leg("a", [7] * tokens, wire.Started(number, 3, 1))],
        )
        for number, tokens in enumerate(outputs)
    ]
    first = None if first_s is None else BEGIN_S + first_s
    return Attempt(Step(model), choices, first_output_s=first, **told)


def record_of(
    *attempts: Attempt,
    error: WeirError | None = None,
    left: bool = False,
    priority: str = "fast",
) -> Record:
    request: Any = SimpleNamespace(priority_class=priority, batch=None)
    known: dict[str, Any] = {"attempts": list(attempts), "error": error, "client_left": left}
    return Record("chat", BEGIN_S, model="m", request=request, **known)


@dataclass(frozen=True)
class Case:
    """What is right for a request."""

    name: str
    record: Record
    cause: Cause = Cause.ANSWERED
    code: str = ""
    ttft_s: float | None = None
    tpot_s: float | None = None
    late: bool = False
    met: tuple[bool | None, bool | None] = (None, None)
    paid: tuple[Counts, ...] = ()
    status: int = 200
    sent: bool = field(default=True, kw_only=True)


def shown(first_s: float | None = 0.5, *outputs: int, **told: Any) -> Attempt:
    return attempt_of(first_s, *outputs, shown=True, **told)


ANSWER = Counts(3, 1, 8)
CASES = [
    Case("in time", record_of(shown(0.5, 8)), ttft_s=0.5, tpot_s=0.5, met=(True, True),
         paid=(ANSWER,)),
    Case("first token late", record_of(shown(1.5, 8)), ttft_s=1.5, tpot_s=2.5 / 7, late=True,
         met=(False, True), paid=(ANSWER,)),
    Case("later tokens slow", record_of(shown(0.5, 3)), ttft_s=0.5, tpot_s=1.75,
         met=(True, False), paid=(Counts(3, 1, 3),)),
    Case("no limits", record_of(shown(0.5, 8), priority="slow"), ttft_s=0.5, tpot_s=0.5,
         paid=(ANSWER,)),
    Case("one token", record_of(shown(0.5, 1)), ttft_s=0.5, met=(True, None),
         paid=(Counts(3, 1, 1),)),
    Case("the longest choice counts", record_of(shown(0.5, 2, 8)), ttft_s=0.5, tpot_s=0.5,
         met=(True, True), paid=(Counts(3, 1, 10),)),
    Case("broken off", record_of(shown(0.5, 8), error=ReplicaFailedError("it is gone")),
         Cause.FAILED, "replica_failed", met=(False, None), paid=(ANSWER,)),
    Case("its own fault", record_of(shown(0.5, 8), error=RequestFailedError("again and again")),
         Cause.FAILED, "request_failed", met=(False, None), paid=(ANSWER,)),
    Case("refused", record_of(error=RateLimitError("too much")), Cause.REFUSED,
         "rate_limit_exceeded", late=True, status=429, sent=False),
    Case("no room", record_of(attempt_of(None, 0), error=OverloadedError("full")),
         Cause.FAILED, "overloaded", late=True, status=503, sent=False),
    Case("never complete", record_of(attempt_of(0.5, 8), error=GenerationTimeoutError("long")),
         Cause.FAILED, "generation_timeout", status=504, sent=False),
    Case("left in the output", record_of(shown(0.5, 8), left=True), Cause.LEFT, "client_gone",
         met=(True, None), paid=(ANSWER,)),
    Case("left in a late output", record_of(shown(2.0, 8), left=True), Cause.LEFT, "client_gone",
         late=True, met=(False, None), paid=(ANSWER,)),
    Case("left before it saw any", record_of(attempt_of(0.5, 8), left=True), Cause.LEFT,
         "client_gone", paid=(ANSWER,), status=0, sent=False),
    Case("another model, as the first failed",
         record_of(attempt_of(None, 0, error=OverloadedError("down")), shown(0.9, 8, model="s")),
         ttft_s=0.9, tpot_s=3.1 / 7, met=(True, True), paid=(ANSWER,)),
    Case("held back, and not good enough",
         record_of(attempt_of(0.1, 2, model="s", doubtful=True), shown(0.9, 8)), ttft_s=0.9,
         tpot_s=3.1 / 7, met=(True, True), paid=(Counts(3, 1, 2), ANSWER)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_ending_is(case: Case) -> None:
    ending = judge(case.record, case.status, END_S, LIMITS, PRICES)
    assert (ending.cause, ending.code, ending.status) == (case.cause, case.code, case.status)
    assert ending.ttft_s == pytest.approx(case.ttft_s)
    assert ending.tpot_s == pytest.approx(case.tpot_s)
    assert ending.late is case.late
    assert (ending.ttft_met, ending.tpot_met) == case.met
    assert ending.at_s == END_S
    assert tuple(each.counts for each in ending.paid) == case.paid
    assert (ending.answered is not None) is case.sent
    if case.sent:
        assert ending.answered is case.record.attempts[-1]
        assert ending.counts == case.record.attempts[-1].counts


def test_a_request_that_nobody_knows_is_refused() -> None:
    record = Record("chat", BEGIN_S, error=RateLimitError("who are you?"))
    ending = judge(record, 429, BEGIN_S, LIMITS, PRICES)
    assert (ending.cause, ending.priority_class, ending.paid) == (Cause.REFUSED, "", ())
    assert not ending.late


def test_the_bill_is_the_sum_of_what_is_paid() -> None:
    first, last = attempt_of(0.1, 2, model="s", doubtful=True), shown(0.9, 8)
    ending = judge(record_of(first, last), 200, END_S, LIMITS, PRICES)
    assert [each.nano_usd for each in ending.paid] == [3_000 + 20_000, 3_000 + 80_000]
    assert ending.nano_usd == 106_000
    assert ending.is_paid(first)
    assert not ending.is_paid(attempt_of(0.1, 2))


def test_it_is_frozen() -> None:
    ending = Ending(0.0, 200, Cause.ANSWERED)
    with pytest.raises(AttributeError):
        ending.status = 500  # type: ignore[misc]
