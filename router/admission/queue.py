"""The admission queue: when a request runs. Pure and synchronous; the clock is injected.

Order: classes by urgency, strictly; classes of one urgency by weighted service; tenants of a class
by virtual token counters (:mod:`router.admission.fair`); of one tenant's requests those that can
still be in time first, then as the class says. When the request whose turn it is finds no room,
nothing behind it is tried, except classes of its own urgency (whose share may reach further): with
smaller ones slipping past, a large request would wait for ever. A long prompt that is held back for
the sake of what is cached (:mod:`router.admission.capacity`) holds back nothing else: there is
room, only not for it, and its turn comes by ageing.

When nothing waits and there is room, a request is dispatched as it is offered: there is nobody to
be compared with, so it goes into no line, heap or timer (tests/property/test_admission_at_once.py).

O(log n) per call in waiting requests and tenants, amortised; :meth:`AdmissionQueue.next` adds what
the capacity costs, and a few looks per class (``MAX_LOOKS`` while prompts are held back).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.admission.arrivals import Waits, waiting_work
from router.admission.backlog import Backlog
from router.admission.capacity import Capacity
from router.admission.engine_priority import EnginePriority
from router.admission.forecast import Expected
from router.admission.outcomes import Dispatch, Refusal, Shed, Spill, SpillRule, Wait
from router.admission.refusals import Refuser
from router.admission.share import AGED_SHARE
from router.admission.timers import Timers
from router.admission.waiting import (
    IN_TIME,
    LATE,
    Item,
    PriorityClass,
    State,
    TenantWeights,
)
from router.types import RouteRequest
from weir.settings.admission import AdmissionSettings

# What ageing chose and that finds no room is overtaken until it was passed over this many times
# ``ageing_every``; from then on everything is held back for it.
HOLD_FACTOR = 4


@dataclass(frozen=True, slots=True)
class ClassStats:
    """One class at one instant. ``drain_rate`` is weighted tokens per second while something
    waited (None: not known yet)."""

    name: str
    waiting: int
    waiting_bytes: int
    late: int
    in_flight: int
    tenants_waiting: int
    drain_rate: float | None


class AdmissionQueue:
    """Not thread-safe: one event loop (or the simulator) owns it.

    ``clock`` gives monotonic seconds, the same clock as the requests' ``arrival_s`` and
    ``deadline_s``; ``wall_clock`` seconds since the epoch, for engine priorities only.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] | None = None,
        spill: SpillRule | None = None,
        weights: TenantWeights | None = None,
    ) -> None:
        """``weights``: a tenant's weight as it is now; None, or None for a tenant, is the one of
        the settings."""
        self._settings = settings
        self._clock = clock
        self._refuser = Refuser(settings, spill)
        self._engine = EnginePriority(wall_clock or clock)
        self._backlog = Backlog(settings, weights)
        self._timers = Timers()
        self._items: dict[str, Item] = {}

    def __len__(self) -> int:
        """Waiting requests."""
        return self._backlog.waiting

    @property
    def in_flight(self) -> int:
        """Requests dispatched and not yet finished, cancelled or given back."""
        return len(self._items) - self._backlog.waiting

    def urgency(self, priority_class: str) -> int:
        """The class's place among the urgencies of all classes; 0 is the most urgent.

        Raises:
            BadRequestError: unknown priority class.
        """
        return self._backlog.urgency(self._backlog.class_named(priority_class))

    def offer(
        self,
        request: RouteRequest,
        body_bytes: int = 0,
        expected: Expected | None = None,
        capacity: Capacity | None = None,
    ) -> Dispatch | Wait | Shed | Spill:
        """Queue the request, or say why not. ``Wait`` means queued: call :meth:`next`.
        ``expected`` None: a request is late only when its time is up, and nothing is cached.
        ``capacity``: when nothing waits and there is room by it, the answer is the ``Dispatch``
        that :meth:`next` would give.

        Raises:
            BadRequestError: unknown priority class.
            ValueError: the request id is already waiting or in flight.
        """
        if request.request_id in self._items:
            raise ValueError(f"request {request.request_id!r} was offered twice")
        now = self._clock()
        priority_class = self._backlog.class_named(request.priority_class)
        tenant = priority_class.tenant(request.tenant)
        item = Item(request, body_bytes, now, priority_class, tenant)
        self._set_due(item, expected)
        refusal = self._refuser.at_the_door(item, now)
        if refusal is not None:
            return refusal
        self._price(item, now)
        if capacity is not None and not self._backlog.waiting:
            dispatch = self._dispatch_at_once(item, capacity, now)
            if dispatch is not None:
                return dispatch
        self._enter(item, now)
        return Wait(self._timers.next_s())

    def next(self, capacity: Capacity) -> Dispatch | Wait | Shed | Spill:
        """The next thing to do. Call until it answers ``Wait``, with a fresh capacity after each
        ``Dispatch`` (which takes room); ``Shed`` and ``Spill`` are for a waiting request whose
        time is up."""
        now = self._clock()
        refusal = self._expire_one(now)
        if refusal is not None:
            return refusal
        if not self._backlog.waiting:
            return Wait()
        return self._next_dispatch(capacity, now) or Wait(self._timers.next_s())

    def progress(
        self,
        request_id: str,
        output_tokens: int,
        cached_tokens: int = 0,
        prompt_tokens: int | None = None,
    ) -> None:
        """``output_tokens`` more tokens came. The first call also settles the prompt: of its
        ``prompt_tokens`` (None: as many as the request said), ``cached_tokens`` were found cached.
        Unknown or ended requests: nothing happens."""
        item = self._items.get(request_id)
        if item is None or item.state is not State.IN_FLIGHT:
            return
        if item.input_reserved:
            self._settle_input(item, cached_tokens, prompt_tokens)
        cost = self._settings.output_weight * output_tokens
        expected = min(cost, item.output_reserved)
        item.output_reserved -= expected
        item.tenant.serve(cost, expected)
        item.priority_class.serve(cost, expected)

    def finish(self, request_id: str) -> bool:
        """The request ended, well or not: what it did not use is freed; its prompt is charged
        even if no progress was ever told. True for the call that did it, False ever after."""
        item = self._items.get(request_id)
        if item is None or item.state is not State.IN_FLIGHT:
            return False
        if item.input_reserved:
            self._settle_input(item, 0)
        self._end(item)
        return True

    def give_back(self, request_id: str) -> bool:
        """The dispatch came to nothing before a replica saw it: nothing more is charged."""
        item = self._items.get(request_id)
        if item is None or item.state is not State.IN_FLIGHT:
            return False
        self._end(item)
        return True

    def cancel(self, request_id: str) -> bool:
        """Take the request out, wherever it is; in flight it is as :meth:`finish`."""
        item = self._items.get(request_id)
        if item is None:
            return False
        if item.state is State.IN_FLIGHT:
            return self.finish(request_id)
        self._drop(item, self._clock())
        return True

    def next_timer_s(self) -> float | None:
        """When the next waiting request's time is up; None if none's ever will be."""
        return self._timers.next_s()

    def close(self) -> tuple[Shed | Spill, ...]:
        """Refuse everything that waits (shutdown, or the model goes away)."""
        now = self._clock()
        waiting = [item for item in self._items.values() if item.state is State.WAITING]
        return tuple(self._refuse(item, Refusal.CLOSED, now) for item in waiting)

    def stats(self) -> tuple[ClassStats, ...]:
        """Every class, in the order of the settings."""
        now = self._clock()
        return tuple(_stats(c, now) for c in self._backlog.classes.values())

    def waiting_work(self) -> dict[str, Waits]:
        """What waits, by class."""
        return waiting_work(self._items.values(), self._backlog.waiting)

    def _set_due(self, item: Item, expected: Expected | None) -> None:
        """What it has to compute, and the latest dispatch at which the first token and the whole
        answer are still in time."""
        request, settings = item.request, item.priority_class.settings
        if expected is not None:
            item.uncached_tokens = expected.uncached_tokens
        arrival_s = request.arrival_s or item.offered_s
        if settings.ttft_slo_ms is not None:
            due_s = arrival_s + settings.ttft_slo_ms / 1000.0
            item.start_by_s = due_s - (expected.first_token_s() if expected else 0.0)
        due = request.deadline_s
        if due is None and settings.deadline_s is not None:
            due = arrival_s + settings.deadline_s
        if due is not None:
            due_s = due - (expected.last_token_s() if expected else 0.0)
            item.start_by_s = min(item.start_by_s, due_s)

    def _price(self, item: Item, now: float) -> None:
        """What its accounts will be charged for it, and which lane it is in."""
        request = item.request
        item.input_reserved = self._settings.input_weight * request.prompt_tokens
        item.output_reserved = self._settings.output_weight * request.expected_output_tokens
        item.cost = item.input_reserved + item.output_reserved
        item.lane = LATE if item.start_by_s <= now else IN_TIME

    def _dispatch_at_once(self, item: Item, capacity: Capacity, now: float) -> Dispatch | None:
        """None if there is no room. Nothing waits, so nothing is overtaken or due."""
        self._order(item)
        share = self._backlog.share(item, now)
        saturated = capacity.saturated_for(item.request, share)
        if saturated is None:
            return None
        self._items[item.request.request_id] = item
        self._backlog.pass_by(item, now)
        priority = self._engine.stamp(self._backlog.rank(item))
        return Dispatch(item.request, priority, saturated, 0.0)

    def _enter(self, item: Item, now: float) -> None:
        settings = item.priority_class.settings
        self._items[item.request.request_id] = item
        self._backlog.enter(item, now)
        if item.lane == IN_TIME:
            self._timers.set(item.start_by_s, item, Refusal.DEADLINE)
        if settings.max_wait_s is not None:
            self._timers.set(now + settings.max_wait_s, item, Refusal.WAIT_LIMIT)

    def _next_dispatch(self, capacity: Capacity, now: float) -> Dispatch | None:
        starved = self._backlog.starved(now)
        if starved is not None:
            item, passed = starved
            self._order(item, promoted=True)
            saturated = capacity.saturated_for(item.request, AGED_SHARE)
            if saturated is not None:
                return self._dispatch(item, saturated, now, promoted=True)
            if passed >= HOLD_FACTOR * self._settings.ageing_every:
                return None
        for classes in self._backlog.levels():
            for c in classes:
                for item in c.candidates(now):
                    self._order(item)
                    share = self._backlog.share(item, now)
                    saturated = capacity.saturated_for(item.request, share)
                    if saturated is not None:
                        return self._dispatch(item, saturated, now, promoted=False)
                    if not capacity.holds_back(item.request, share):
                        break
            return None
        return None

    def _dispatch(
        self, item: Item, saturated: frozenset[str], now: float, promoted: bool
    ) -> Dispatch:
        rank = 0 if promoted else self._backlog.rank(item)
        self._backlog.dispatch(item, now)
        waited_s = now - item.offered_s
        return Dispatch(item.request, self._engine.stamp(rank), saturated, waited_s)

    def _order(self, item: Item, promoted: bool = False) -> None:
        """Tell the request what goes before it in an engine that yields."""
        # What ageing let through must not be overtaken again inside the engine.
        urgency = 0 if promoted else self._backlog.urgency(item.priority_class)
        if item.request.urgency != urgency:
            request = item.request
            item.request = request.completed(request.expected_output_tokens, urgency)

    def _settle_input(
        self, item: Item, cached_tokens: int, prompt_tokens: int | None = None
    ) -> None:
        settings = self._settings
        prompt = item.request.prompt_tokens if prompt_tokens is None else prompt_tokens
        cached = min(cached_tokens, prompt)
        cost = settings.input_weight * (prompt - cached) + settings.cached_weight * cached
        reserved, item.input_reserved = item.input_reserved, 0.0
        item.tenant.serve(cost, reserved)
        item.priority_class.serve(cost, reserved)
        if cost < reserved:
            item.priority_class.touch(item.tenant)

    def _end(self, item: Item) -> None:
        item.state = State.GONE
        del self._items[item.request.request_id]
        left = item.input_reserved + item.output_reserved
        item.tenant.settle(left)
        item.priority_class.settle(left)
        item.priority_class.flying -= not item.tenant.in_flight
        item.priority_class.touch(item.tenant)

    def _drop(self, item: Item, now: float) -> None:
        del self._items[item.request.request_id]
        self._backlog.drop(item, now)

    def _expire_one(self, now: float) -> Shed | Spill | None:
        """Apply the timers that are due, up to the first one that refuses a request."""
        while (due := self._timers.pop_due(now)) is not None:
            item, refusal = due
            on_hopeless = item.priority_class.settings.on_hopeless
            if refusal is Refusal.WAIT_LIMIT or on_hopeless == "shed":
                return self._refuse(item, refusal, now)
            self._backlog.now_late(item, now)
        return None

    def _refuse(self, item: Item, refusal: Refusal, now: float) -> Shed | Spill:
        self._drop(item, now)
        return self._refuser.refuse(item, refusal, now)


def _stats(c: PriorityClass, now_s: float) -> ClassStats:
    tenants = [t for t in c.tenants.values() if t.waiting]
    late = sum(t.queues[LATE].live for t in tenants)
    rate = c.drain.rate(now_s)
    return ClassStats(c.name, c.waiting, c.waiting_bytes, late, c.in_flight, len(tenants), rate)
