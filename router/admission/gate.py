"""The gateway's door: futures and a timer around the synchronous dispatcher. One gate per model.

A waiter is woken in dispatch order. The replica is reserved in the same synchronous step as the
dispatch, before anyone else can look at the room. Every way out (answer, error, cancellation at any
await) frees the request's place and its reservation once.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from router.admission.ticket import Ticket
from router.dispatcher import Dispatcher, Waiting
from router.types import RouteRequest


class Admission:
    """One request's way through the gate: an async context manager that yields the ticket, and
    closes it on leaving."""

    __slots__ = ("_body_bytes", "_dispatcher", "_request", "_ticket")

    def __init__(self, dispatcher: Dispatcher, request: RouteRequest, body_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._body_bytes = body_bytes

    async def __aenter__(self) -> Ticket:
        outcome = self._dispatcher.offer(self._request, self._body_bytes)
        if isinstance(outcome, Waiting):
            waiting = outcome
            try:
                await _settled(waiting)
            except BaseException:
                # Cancelled, perhaps after the dispatch but before this task ran again.
                self._dispatcher.cancel(waiting)
                raise
            assert waiting.outcome is not None
            outcome = waiting.outcome
        if not isinstance(outcome, Ticket):
            raise outcome.error
        self._ticket = outcome
        return outcome

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ticket.close()


def _settled(waiting: Waiting) -> asyncio.Future[None]:
    """Done when the outcome is there; the tasks that await it run in the order of settling."""
    settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(_: Waiting) -> None:
        if not settled.done():
            settled.set_result(None)

    waiting.on_settled = tell
    return settled


class Gate:
    """``dispatcher`` must be driven by this gate alone."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._timer: asyncio.TimerHandle | None = None
        dispatcher.set_timer = self._set_timer

    def __len__(self) -> int:
        """Requests waiting at the gate."""
        return len(self._dispatcher)

    def admit(self, request: RouteRequest, body_bytes: int = 0) -> Admission:
        """``async with gate.admit(request) as ticket``: enters when the request may run. Close the
        ticket inside with ``complete=True`` when the answer ended by itself.

        Raises (on entering):
            OverloadedError: queue full, deadline hopeless, wait limit passed, or closing; or
                :class:`SpilledError` for the fallback; all with ``retry_after_s``.
            RateLimitError: the tenant's own part of the queue is full.
            NoReplicaError: there is no replica, and nothing may wait for one.
        """
        return Admission(self._dispatcher, request, body_bytes)

    def wake(self) -> None:
        """See :meth:`Dispatcher.wake`."""
        self._dispatcher.wake()

    def close(self) -> None:
        """See :meth:`Dispatcher.close`."""
        self._dispatcher.close()

    def _set_timer(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at_s is not None:
            delay_s = max(0.0, at_s - self._dispatcher.clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._dispatcher.wake)
