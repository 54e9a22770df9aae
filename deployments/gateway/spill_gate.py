"""At the teacher's gate: who is asked whether to spill, and who waits only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from fallback.policies import OVERLOAD, RequestFacts, SpillPolicy
from router.admission import Refusal, Ticket
from router.admission.gate import Admission
from router.ledger import Reservation
from router.types import RouteRequest
from weir.errors import OverloadedError


class ImpatientError(OverloadedError):
    """A request waited at the gate for as long as it should, or until the pool broke."""


class SpillRule:
    """What the admission queue asks (:data:`router.admission.outcomes.SpillRule`).

    Only requests that it has been told about may spill: one that came back because the student
    could not take it must wait, or be refused, like any other.
    """

    def __init__(self, policy: SpillPolicy) -> None:
        self._policy = policy
        self._asked: dict[str, RequestFacts] = {}

    @contextmanager
    def asked_about(self, request_id: str, facts: RequestFacts) -> Iterator[None]:
        """The request may spill while this lasts."""
        self._asked[request_id] = facts
        try:
            yield
        finally:
            del self._asked[request_id]

    def __call__(
        self, request: RouteRequest, predicted_wait_s: float | None, refusal: Refusal | None
    ) -> str | None:
        facts = self._asked.get(request.request_id)
        if facts is None or refusal is Refusal.CLOSED:
            return None
        spills = self._policy.overloaded(facts, predicted_wait_s, refusal is not None)
        return OVERLOAD if spills else None


class Impatient:
    """Bounds how long requests wait at the gate; all can be called off at once."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Timeout] = set()

    def around(self, admission: Admission[Reservation], left_s: float | None) -> _Bounded:
        """The admission, entered within ``left_s`` seconds (None: any time) or not at all."""
        return _Bounded(admission, left_s, self._waiting)

    def hurry_all(self) -> None:
        """Whoever waits, waits no more."""
        now = asyncio.get_running_loop().time() if self._waiting else 0.0
        for timeout in self._waiting:
            if not timeout.expired():
                timeout.reschedule(now)


class _Bounded:
    def __init__(
        self,
        admission: Admission[Reservation],
        left_s: float | None,
        waiting: set[asyncio.Timeout],
    ) -> None:
        self._admission = admission
        self._left_s = left_s
        self._waiting = waiting

    async def __aenter__(self) -> Ticket[Reservation]:
        timeout = asyncio.timeout(self._left_s)
        try:
            async with timeout:
                self._waiting.add(timeout)
                # A cancellation inside makes the gate take its ticket back, if it gave one.
                return await self._admission.__aenter__()
        except TimeoutError:
            raise ImpatientError(
                "The request waited as long as its class should.", retry_after_s=1.0
            ) from None
        finally:
            self._waiting.discard(timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._admission.__aexit__(kind, error, trace)
