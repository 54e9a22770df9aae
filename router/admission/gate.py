"""The gateway's door: an asyncio wrapper around the pure queue. One gate per model.

A waiter is woken in dispatch order. ``choose`` runs in the same synchronous step as the dispatch,
so the replica's reservation is made before anyone else can look at the capacity. Every way out
(answer, error, cancellation at any await) frees the request's place and its reservation once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Generic, Protocol

from router.admission.capacity import Capacity
from router.admission.engine_priority import EnginePriority, engine_ranks, order_of
from router.admission.outcomes import Dispatch, Shed, Spill, SpilledError, Wait
from router.admission.queue import AdmissionQueue
from router.admission.settings import AdmissionSettings
from router.admission.ticket import Choose, G, Ticket
from router.types import RouteRequest
from weir.errors import BadRequestError


class Admission(Protocol[G]):
    """What ``gate.admit(...)`` returns: an async context manager that yields the ticket."""

    async def __aenter__(self) -> Ticket[G]: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Gate(Protocol[G]):
    """What the gateway sees, whether admission is on or off."""

    def admit(self, request: RouteRequest, body_bytes: int = 0) -> Admission[G]: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _Passage(Generic[G]):
    """One request's way through the gate, and its async context manager."""

    __slots__ = ("_gate", "body_bytes", "error", "future", "request", "ticket")

    def __init__(self, gate: AdmissionGate[G], request: RouteRequest, body_bytes: int) -> None:
        self._gate = gate
        self.request = request
        self.body_bytes = body_bytes
        self.ticket: Ticket[G] | None = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Ticket[G]:
        try:
            self._gate.enter(self)
            if self.ticket is None and self.error is None:
                self.future = asyncio.get_running_loop().create_future()
                await self.future
        except BaseException:
            # Cancelled, perhaps after the dispatch but before this task ran again.
            self._gate.abandon(self)
            raise
        if self.error is not None:
            raise self.error
        assert self.ticket is not None
        return self.ticket

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.ticket is not None
        self.ticket.close()

    def settle(self, ticket: Ticket[G] | None, error: BaseException | None) -> None:
        """The outcome is here; the waiting task runs again, in the order of these calls."""
        self.ticket, self.error = ticket, error
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class AdmissionGate(Generic[G]):
    """Admission switched on.

    ``capacity`` is asked anew before each dispatch (a snapshot of the router); ``choose`` picks
    and reserves. Call :meth:`wake` whenever replicas may have got room by themselves: new stats,
    a new replica. Freed tickets and first tokens wake by themselves.
    """

    def __init__(
        self,
        queue: AdmissionQueue,
        clock: Callable[[], float],
        capacity: Callable[[], Capacity],
        choose: Choose[G],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._capacity = capacity
        self._choose = choose
        self._passages: dict[str, _Passage[G]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._again = False
        self._closed = False

    def __len__(self) -> int:
        """Requests waiting at the gate."""
        return len(self._passages)

    def admit(self, request: RouteRequest, body_bytes: int = 0) -> _Passage[G]:
        """``async with gate.admit(request) as ticket``: enters when the request may run.

        Raises (on entering):
            OverloadedError: queue full, deadline hopeless, wait limit passed, or closing; or
                :class:`SpilledError` for the fallback; all with ``retry_after_s``.
            RateLimitError: the tenant's own part of the queue is full.
            NoReplicaError: what ``choose`` raised.
        """
        return _Passage(self, request, body_bytes)

    def enter(self, passage: _Passage[G]) -> None:
        """Offer the request, and run the queue; the passage may be settled on return."""
        outcome = self._queue.offer(passage.request, passage.body_bytes)
        if not isinstance(outcome, Wait):
            passage.settle(None, _error_of(outcome))
            return
        self._passages[passage.request.request_id] = passage
        if self._closed:
            self.close()
        else:
            self.wake()

    def abandon(self, passage: _Passage[G]) -> None:
        """The waiting task was cancelled, whatever the passage's state."""
        if passage.ticket is not None:
            passage.ticket.give_back()
            return
        request_id = passage.request.request_id
        if self._passages.get(request_id) is passage:
            del self._passages[request_id]
            self._queue.cancel(request_id)
            self.wake()

    def wake(self) -> None:
        """Dispatch all that has room now. A call from within (a ``choose`` that frees something)
        is remembered, not nested."""
        self._again = True
        if self._pumping:
            return
        until_s: float | None = None
        self._pumping = True
        try:
            while self._again and self._passages:
                self._again = False
                until_s = self._pump()
        finally:
            self._pumping = False
        self._set_timer(until_s)

    def close(self) -> None:
        """Refuse all who wait, and all who come. Tickets already given stay good."""
        self._closed = True
        for refused in self._queue.close():
            self._settle(refused.request, None, _error_of(refused))
        self._set_timer(None)

    def _pump(self) -> float | None:
        while len(self._queue):  # No snapshot is taken when nothing waits.
            outcome = self._queue.next(self._capacity())
            if isinstance(outcome, Wait):
                return outcome.until_s
            if isinstance(outcome, Dispatch):
                self._dispatch(outcome)
            else:
                self._settle(outcome.request, None, _error_of(outcome))
        return None

    def _dispatch(self, outcome: Dispatch) -> None:
        request = outcome.request
        try:
            grant = self._choose(request, outcome.saturated)
        except Exception as error:  # noqa: BLE001
            # Raised again in the task that waits for it, not in the one that happened to wake us.
            self._queue.give_back(request.request_id)
            self._settle(request, None, error)
            return
        ticket = Ticket(
            request,
            grant,
            self._choose,
            outcome.priority,
            outcome.waited_s,
            self._queue,
            self.wake,
        )
        self._settle(request, ticket, None)

    def _settle(
        self, request: RouteRequest, ticket: Ticket[G] | None, error: BaseException | None
    ) -> None:
        self._passages.pop(request.request_id).settle(ticket, error)

    def _set_timer(self, until_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if until_s is not None and self._passages:
            delay_s = max(0.0, until_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.wake)


class _OpenPassage(Generic[G]):
    __slots__ = ("_gate", "_request", "_ticket")

    def __init__(self, gate: OpenGate[G], request: RouteRequest) -> None:
        self._gate = gate
        self._request = request

    async def __aenter__(self) -> Ticket[G]:
        self._ticket = self._gate.ticket(self._request)
        return self._ticket

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ticket.close()


class OpenGate(Generic[G]):
    """Admission switched off: everything runs at once, where ``choose`` says. The engine still
    gets each class's priority."""

    def __init__(
        self, settings: AdmissionSettings, wall_clock: Callable[[], float], choose: Choose[G]
    ) -> None:
        ranks = engine_ranks(c.order for c in settings.classes)
        self._ranks = {c.name: ranks[c.order, 0] for c in settings.classes}
        self._engine = EnginePriority(wall_clock)
        self._choose = choose

    def admit(self, request: RouteRequest, body_bytes: int = 0) -> _OpenPassage[G]:
        """Never waits; raises what ``choose`` raises."""
        return _OpenPassage(self, request)

    def ticket(self, request: RouteRequest) -> Ticket[G]:
        rank = self._ranks.get(request.priority_class)
        if rank is None:
            known = ", ".join(self._ranks)
            raise BadRequestError(
                f"unknown priority class {request.priority_class!r}; known: {known}",
                param="priority_class",
            )
        if request.order != order_of(rank):
            request = replace(request, order=order_of(rank))
        grant = self._choose(request, ())
        return Ticket(request, grant, self._choose, self._engine.stamp(rank))

    def wake(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing waits."""


def _error_of(refused: Shed | Spill) -> BaseException:
    return refused.error if isinstance(refused, Shed) else SpilledError(refused)
