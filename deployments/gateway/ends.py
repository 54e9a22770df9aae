"""When a request ends, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deployments.gateway.booking import Booking
from deployments.gateway.ending import ClassLimits, Ending, judge
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from weir.errors import WeirError

Listener = Callable[[Record, Ending], None]


class Ends:
    """Judges requests at their end, books them, and tells all ``listeners``, in their order.

    A request ends right before its client has the last of its answer, or of an error: so it is
    judged and in the ledger by then, and what becomes of its connection afterwards changes nothing.
    Listeners hear of it once that last is written, which does not wait for them. ``clock`` is the
    loop's.
    """

    def __init__(
        self,
        limits: ClassLimits,
        prices: PriceLists,
        booking: Booking,
        clock: Callable[[], float],
        listeners: Iterable[Listener],
    ) -> None:
        self._limits = limits
        self._prices = prices
        self._booking = booking
        self._clock = clock
        self.listeners = list(listeners)

    def complete(self, record: Record) -> None:
        """The last attempt's answer is complete, and its last is about to be written."""
        record.attempts[-1].shown = True
        self._judge(record, 200)

    def fail(self, record: Record, error: WeirError, status: int) -> None:
        """The error is about to be told. ``status``: what the client has seen so far (0: none)."""
        record.error = error
        self._judge(record, status or error.status)

    def leave(self, record: Record) -> None:
        """The client has left, or whoever asks has given up: in time, unless it was all written."""
        record.client_left = record.ending is None

    def tell(self, record: Record, status: int) -> None:
        """It is over. ``status``: what the client has seen (0: none)."""
        ending = record.ending or self._judge(record, status)
        for listener in self.listeners:
            listener(record, ending)

    def _judge(self, record: Record, status: int) -> Ending:
        # An answer of which the last could not be written is judged again, and booked already.
        booked = record.ending is not None
        ending = judge(record, status, self._clock(), self._limits, self._prices)
        record.ending = ending
        if not booked:
            self._booking.book(record, ending)
        return ending
