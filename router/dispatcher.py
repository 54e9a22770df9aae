"""The dispatcher of one model: queue, room, router and tickets as one synchronous object.

:mod:`router.admission.gate` wraps it with futures and a timer, the simulator drives it as it is.
It waits for nothing, knows time only from its clocks, and is the one place where a request is
offered, given a replica, moved to another one, and ended.

With ``admission.enabled: false`` it is the same object: every request has room at once.
"""

from __future__ import annotations

from collections.abc import Callable

from router.admission.arrivals import Arrivals
from router.admission.capacity import Capacity, Prefer, Room, Unlimited
from router.admission.limit import bounding, build_limits
from router.admission.outcomes import Dispatch, Failed, Refused, SpillRule, Wait
from router.admission.queue import AdmissionQueue
from router.admission.ticket import Ticket
from router.admission.waiting import TenantWeights
from router.disaggregation.room import PlacedRoom
from router.forecast import Forecast
from router.lengths import OutputLengths
from router.returning import CacheUse
from router.router import Router
from router.types import ReplicaInfo, RouteRequest
from router.view import View
from weir.settings.admission import AdmissionSettings

#: Where the replica that the policy prefers is full, the next requests mostly find theirs full,
#: too, and choosing costs as much as looking at all: so many are not tried that way.
CROWDED_OFFERS = 16


class Waiting:
    """A request in the queue. ``outcome`` is None while it waits; ``on_settled``, if set, is
    called once when it is there."""

    __slots__ = ("on_settled", "outcome", "request")

    def __init__(self, request: RouteRequest) -> None:
        self.request = request
        self.outcome: Ticket | Refused | None = None
        self.on_settled: Callable[[Waiting], None] | None = None

    def settle(self, outcome: Ticket | Refused) -> None:
        self.outcome = outcome
        if self.on_settled is not None:
            self.on_settled(self)


def _no_timer(at_s: float | None) -> None:
    """Whoever drives the dispatcher asks :meth:`Dispatcher.next_timer_s` himself."""


class Dispatcher:
    """Not thread-safe: one event loop (or the simulator) owns it.

    ``clock`` gives monotonic seconds, the same clock as the router's and the requests'
    ``arrival_s``; ``wall_clock`` seconds since the epoch, for engine priorities only. ``spill`` is
    asked whether a request should be answered elsewhere. :attr:`set_timer` is called whenever
    :meth:`next_timer_s` may have changed.

    Call :meth:`wake` when replicas may have got room by themselves (new stats of a replica).
    Tickets, the membership of the router and avoided replicas wake by themselves.
    """

    def __init__(
        self,
        router: Router,
        settings: AdmissionSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        *,
        spill: SpillRule | None = None,
        weights: TenantWeights | None = None,
        lengths: OutputLengths | None = None,
    ) -> None:
        self.router = router
        self.clock = clock
        self.lengths = lengths or OutputLengths()
        self.set_timer: Callable[[float | None], None] = _no_timer
        self.queue = AdmissionQueue(settings, clock, wall_clock, spill, weights)
        self._enabled = settings.enabled
        self._limits = bounding(build_limits(settings.limits))
        self._caches = CacheUse()
        self.arrivals = Arrivals()
        self._waiting: dict[str, Waiting] = {}
        self._crowded_offers = 0  # that are still to come
        self._pumping = False
        self._again = False
        self._closed = False
        if router.placing is not None:
            router.placing.waiting = self.__len__
        router.listeners.append(self._members_changed)
        self._members_changed((), router.members)

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def offer(self, request: RouteRequest, body_bytes: int = 0) -> Ticket | Waiting | Refused:
        """A request came: it runs now, waits, or is refused.

        ``expected_output_tokens`` 0 means that the caller does not know: it is filled in from what
        was learned, at most ``max_output_tokens``.

        Raises:
            BadRequestError: unknown priority class.
            ValueError: the request id is already waiting or in flight.
        """
        request = self._completed(request)
        view = self._view()
        cached = view.most_cached_tokens(request)
        self.arrivals.add(request, cached)
        expected = Forecast(request, view, self.router.latency.fit(), cached)
        room = None if self._closed or self._pumping else self._room(view, self._prefer())
        outcome = self.queue.offer(request, body_bytes, expected, room)
        if isinstance(room, Room) and room.preferred_is_full:
            self._crowded_offers = CROWDED_OFFERS
        self._caches.observe(request.block_hashes, request.prompt_tokens, cached)
        if isinstance(outcome, Dispatch):
            return self._grant(outcome, view)
        if not isinstance(outcome, Wait):
            return outcome
        waiting = self._waiting[request.request_id] = Waiting(request)
        try:
            if self._closed:
                self.close()
            else:
                self._wake(view)
        except BaseException:
            self.cancel(waiting)
            raise
        return waiting if waiting.outcome is None else waiting.outcome

    def cancel(self, waiting: Waiting) -> None:
        """Nobody wants the outcome any more. A ticket that is there already is given back, and
        its tenant is not charged."""
        if isinstance(waiting.outcome, Ticket):
            waiting.outcome.give_back()
        elif self._waiting.get(waiting.request.request_id) is waiting:
            del self._waiting[waiting.request.request_id]
            self.queue.cancel(waiting.request.request_id)
            self.wake()

    def next_timer_s(self) -> float | None:
        """When :meth:`wake` should be called at the latest: a limit on waiting passes, or an
        avoided replica may be chosen again. None while only an event can change anything."""
        if not self._waiting:
            return None
        times = (self.queue.next_timer_s(), self.router.next_return_s())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def wake(self) -> None:
        """Dispatch all that has room now. A call from within is remembered, not nested."""
        self._wake(None)

    def _wake(self, view: View | None) -> None:
        """``view``: one that is still good, if there is one."""
        self._again = True
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._again and self._waiting:
                self._again = False
                self._pump(view)
                view = None
        finally:
            self._pumping = False
        self.set_timer(self.next_timer_s())

    def close(self) -> None:
        """Refuse all who wait, and all who come. Tickets already given stay good."""
        self._closed = True
        for refused in self.queue.close():
            self._settle(refused.request, refused)
        self.set_timer(None)

    def _pump(self, view: View | None) -> None:
        while len(self.queue):  # No view is taken when nothing waits.
            view = view or self._view()
            outcome = self.queue.next(self._room(view))
            if isinstance(outcome, Wait):
                return
            if isinstance(outcome, Dispatch):
                self._settle(outcome.request, self._grant(outcome, view))
            else:
                self._settle(outcome.request, outcome)
            view = None

    def _prefer(self) -> Prefer | None:
        """The router's own choice first, unless that was in vain a moment ago."""
        if self._crowded_offers:
            self._crowded_offers -= 1
            return None
        return self.router.preferred if self.router.compares else None

    def _room(self, view: View, prefer: Prefer | None = None) -> Capacity:
        if self.router.places and self._enabled:
            return PlacedRoom(view, self._limits, self.router.place)
        return Room(view, self._limits, prefer) if self._enabled else Unlimited()

    def _view(self) -> View:
        return self.router.view(keeping=self._caches.keeping, thrashing=self._caches.thrashing)

    def _completed(self, request: RouteRequest) -> RouteRequest:
        """With its class's urgency, and the output to expect where the caller does not know it."""
        expected = request.expected_output_tokens or self.lengths.expected_tokens(
            request.tenant, request.priority_class, request.max_output_tokens
        )
        urgency = self.queue.urgency(request.priority_class)
        if (expected, urgency) == (request.expected_output_tokens, request.urgency):
            return request
        return request.completed(expected, urgency)

    def _grant(self, dispatch: Dispatch, view: View) -> Ticket | Failed:
        request = dispatch.request
        try:
            grant = self.router.choose(request, dispatch.saturated, view)
        except Exception as error:  # noqa: BLE001
            # It belongs to whoever offered this request, not to whoever happened to wake us.
            self.queue.give_back(request.request_id)
            return Failed(request, error)
        return Ticket(self, request, grant, dispatch.priority, dispatch.waited_s)

    def _settle(self, request: RouteRequest, outcome: Ticket | Refused) -> None:
        self._waiting.pop(request.request_id).settle(outcome)

    def _members_changed(self, old: tuple[ReplicaInfo, ...], new: tuple[ReplicaInfo, ...]) -> None:
        self._caches.resize(sum(info.kv_blocks_total * info.block_size for info in new))
        self.wake()
