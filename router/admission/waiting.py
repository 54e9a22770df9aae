"""What waits, and where: class -> tenant -> its lane of requests in time, its lane of late ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import islice

from router.admission.drain import DrainMeter
from router.admission.fair import Account, ActiveSet, LazyMin, rank_of
from router.types import RouteRequest
from weir.settings.admission import AdmissionSettings, ClassSettings

IN_TIME, LATE = 0, 1
#: A tenant's weight as it is now; None: as the settings say.
TenantWeights = Callable[[str], float | None]
#: Tenants looked at for one dispatch while long prompts are held back, requests of theirs in all,
#: and how deep into a line.
MAX_HEADS = 16
MAX_LOOKS = 32
MAX_WALK = 1024
#: What was found held back is not looked at again for so long, unless it is first.
HELD_BACK_S = 1.0


class State(IntEnum):
    WAITING = 0
    IN_FLIGHT = 1
    GONE = 2


class Item:
    """One request from offer to its end, with what it holds of each account."""

    __slots__ = (
        "body_bytes",
        "cost",
        "held_back_s",
        "input_reserved",
        "lane",
        "offered_s",
        "output_reserved",
        "priority_class",
        "request",
        "start_by_s",
        "state",
        "tenant",
        "uncached_tokens",
    )

    def __init__(
        self,
        request: RouteRequest,
        body_bytes: int,
        offered_s: float,
        priority_class: PriorityClass,
        tenant: Tenant,
    ) -> None:
        self.request = request
        self.body_bytes = body_bytes
        self.offered_s = offered_s
        self.priority_class = priority_class
        self.tenant = tenant
        self.lane = IN_TIME
        self.state = State.WAITING
        self.start_by_s = math.inf
        self.uncached_tokens = request.prompt_tokens
        self.input_reserved = 0.0
        self.output_reserved = 0.0
        self.cost = 0.0
        self.held_back_s = -math.inf  # when it was last found held back

    def sort_key(self) -> float:
        """Its place among the tenant's own requests; equal keys keep the order of arrival."""
        settings = self.priority_class.settings
        if settings.within == "deadline":
            return self.start_by_s
        if settings.within == "short-first":
            delay_s = settings.short_first_s_per_1k_tokens
            return self.offered_s + delay_s * self.uncached_tokens / 1000.0
        return 0.0


class LaneQueue:
    """One tenant's waiting requests in one lane: a heap with late deletion."""

    __slots__ = ("_heap", "_lane", "_pushes", "live")

    def __init__(self, lane: int) -> None:
        self._lane = lane
        self._heap: list[tuple[float, int, Item]] = []
        self._pushes = 0
        self.live = 0

    def push(self, item: Item) -> None:
        self._pushes += 1
        self.live += 1
        heapq.heappush(self._heap, (item.sort_key(), self._pushes, item))

    def head(self) -> Item:
        """The next request. The queue must not be empty."""
        heap = self._heap
        while not self._holds(heap[0][2]):
            heapq.heappop(heap)
        return heap[0][2]

    def in_order(self) -> Iterator[Item]:
        """The next requests, while the queue does not change, among its first ``MAX_WALK``
        entries. Finds the smallest entries of the heap without taking them out."""
        heap = self._heap
        places = [(entry[:2], 0) for entry in heap[:1]]
        for _ in range(MAX_WALK):
            if not places:
                return
            place = heapq.heappop(places)[1]
            for below in (2 * place + 1, 2 * place + 2):
                if below < len(heap):
                    heapq.heappush(places, (heap[below][:2], below))
            if self._holds(heap[place][2]):
                yield heap[place][2]

    def removed(self) -> None:
        """One of the queue's items left (its state or lane already says so)."""
        self.live -= 1
        if len(self._heap) > 2 * self.live + 16:
            self._heap = [entry for entry in self._heap if self._holds(entry[2])]
            heapq.heapify(self._heap)

    def _holds(self, item: Item) -> bool:
        return item.state is State.WAITING and item.lane == self._lane


class Tenant(Account):
    """A tenant within one class. One account for both lanes: lateness orders a tenant's own
    requests, and never takes its turn away, else who sends most would be served least."""

    __slots__ = ("queues", "waiting", "waiting_bytes", "waiting_cost")

    def __init__(self, name: str, weight: float) -> None:
        super().__init__(name, weight)
        self.queues = (LaneQueue(IN_TIME), LaneQueue(LATE))
        self.waiting = 0
        self.waiting_bytes = 0
        self.waiting_cost = 0.0

    def head(self) -> Item:
        """Its next request, those in time first. Something must be waiting."""
        in_time, late = self.queues
        return (in_time if in_time.live else late).head()

    def candidates(self, now_s: float) -> Iterator[Item]:
        """Its next request; when that is held back and the caller goes on, those behind it that
        were not found held back a moment ago."""
        first = self.head()
        yield first
        first.held_back_s = now_s
        for queue in self.queues:
            for item in queue.in_order():
                if now_s - item.held_back_s >= HELD_BACK_S:
                    yield item
                    item.held_back_s = now_s


class Age:
    """How long something was passed over: what ageing looks at."""

    __slots__ = ("at_dispatch", "since_s")

    def __init__(self) -> None:
        self.since_s = 0.0
        self.at_dispatch = 0

    def restart(self, now_s: float, dispatches: int) -> None:
        """It had its turn, or began to wait."""
        self.since_s = now_s
        self.at_dispatch = dispatches


class PriorityClass(Account):
    """A class: its account among the classes of its urgency, its tenants, what is waiting and how
    fast it drains."""

    __slots__ = (
        "_prune_at",
        "_settings",
        "_weights",
        "active",
        "ages",
        "drain",
        "flying",
        "last_dispatch_s",
        "late",
        "settings",
        "tenants",
        "waiting",
        "waiting_bytes",
        "waiting_cost",
    )

    def __init__(
        self,
        settings: ClassSettings,
        admission: AdmissionSettings,
        weights: TenantWeights | None = None,
    ) -> None:
        super().__init__(settings.name, settings.weight)
        self.settings = settings
        self._settings = admission
        self._weights = weights
        self.tenants: dict[str, Tenant] = {}
        self.active: ActiveSet[Tenant] = ActiveSet()
        self.late: LazyMin[Tenant] = LazyMin(rank_of)
        # Of the class, and of its late requests.
        self.ages = (Age(), Age())
        self.drain = DrainMeter(admission.drain_window_s)
        self.last_dispatch_s = -math.inf
        self.flying = 0  # tenants with requests in flight
        self.waiting = 0
        self.waiting_bytes = 0
        self.waiting_cost = 0.0
        self._prune_at = 1024

    def tenant(self, name: str) -> Tenant:
        """The tenant's account, made when first seen; its weight is looked up for each request."""
        weight = self._weight(name)
        account = self.tenants.get(name)
        if account is None:
            if len(self.tenants) >= self._prune_at:
                self._prune()
            account = self.tenants[name] = Tenant(name, weight)
        elif account.weight != weight:
            account.reweigh(weight)
            self.active.touch(account)
            if account in self.late:
                self.late.put(account)
        return account

    def _weight(self, name: str) -> float:
        live = self._weights(name) if self._weights is not None else None
        return self._settings.tenant_weight(name) if live is None else live

    def head(self) -> Item:
        """The next request of the tenant of least rank. Something must be waiting."""
        tenant = self.active.first()
        assert tenant is not None, "head() of an empty class"
        return tenant.head()

    def candidates(self, now_s: float) -> Iterator[Item]:
        """What may run next while all before it is held back: the next request of the tenant of
        least rank, those behind it, then the next tenant's; ``MAX_LOOKS`` at most."""
        return islice(self._candidates(now_s), MAX_LOOKS)

    def _candidates(self, now_s: float) -> Iterator[Item]:
        yield from self.head().tenant.candidates(now_s)
        if len(self.active) > 1:
            for tenant in self.active.ranked()[1:MAX_HEADS]:
                yield from tenant.candidates(now_s)

    def late_head(self) -> Item:
        """The same among the late requests alone. One must be waiting."""
        tenant = self.late.first()
        assert tenant is not None, "late_head() without late requests"
        return tenant.queues[LATE].head()

    def entered(self, item: Item) -> None:
        """``item`` waits from now on, in the lane that it says."""
        tenant = item.tenant
        if not self.waiting:
            self.drain.start(item.offered_s)
        for holder in (self, tenant):
            holder.waiting += 1
            holder.waiting_bytes += item.body_bytes
            holder.waiting_cost += item.cost
        if tenant.waiting == 1:
            self.active.add(tenant)
        self._into_line(item)

    def now_late(self, item: Item) -> None:
        """A waiting ``item`` goes from its tenant's lane in time to the late one."""
        item.lane = LATE
        item.tenant.queues[IN_TIME].removed()
        self._into_line(item)

    def left(self, item: Item, now_s: float, served: bool) -> None:
        """Count it out again, whether it was served or taken away (its state says so already)."""
        tenant = item.tenant
        for holder in (self, tenant):
            holder.waiting -= 1
            holder.waiting_bytes -= item.body_bytes
            holder.waiting_cost = holder.waiting_cost - item.cost if holder.waiting else 0.0
        queue = tenant.queues[item.lane]
        queue.removed()
        if item.lane == LATE and not queue.live:
            self.late.drop(tenant)
        if not tenant.waiting:
            self.active.leave(tenant)
        if served:
            self.drain.served(item.cost, now_s)
        if not self.waiting:
            self.drain.stop(now_s)

    def touch(self, tenant: Tenant) -> None:
        """The rank of ``tenant`` may have shrunk."""
        self.active.touch(tenant)
        if tenant in self.late:
            self.late.put(tenant)

    def predicted_wait_s(self, tenant: Tenant | None, now_s: float) -> float | None:
        """Seconds until a request offered now would run; None while the drain rate is unknown.

        The class drains at its measured rate, of which a tenant gets one part in as many as
        have requests waiting; it never waits longer than for the whole class.
        """
        if not self.waiting:
            return 0.0
        rate = self.drain.rate(now_s)
        if rate is None:
            return None
        ahead = self.waiting_cost
        if tenant is not None:
            sharers = len(self.active) + (tenant.waiting == 0)
            ahead = min(ahead, tenant.waiting_cost * sharers)
        return ahead / rate if rate > 0 else math.inf

    def _into_line(self, item: Item) -> None:
        queue = item.tenant.queues[item.lane]
        queue.push(item)
        if item.lane == LATE and queue.live == 1:
            self.late.put(item.tenant)

    def _prune(self) -> None:
        """Forget idle tenants whose return would lift them anyway: nothing changes for them."""
        floor = self.active.floor()
        for name, tenant in list(self.tenants.items()):
            if not tenant.waiting and not tenant.in_flight and tenant.service <= floor:
                del self.tenants[name]
        self._prune_at = max(1024, 2 * len(self.tenants))
