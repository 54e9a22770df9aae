"""What waits, and where: class -> lane (in time, late) -> tenant -> line of requests."""

from __future__ import annotations

import heapq
import math
from enum import IntEnum

from router.admission.drain import DrainMeter
from router.admission.fair import Account, ActiveSet
from router.admission.settings import AdmissionSettings, ClassSettings
from router.types import RouteRequest

IN_TIME, LATE = 0, 1


class State(IntEnum):
    WAITING = 0
    IN_FLIGHT = 1
    GONE = 2


class Item:
    """One request from offer to its end, with what it holds of each account."""

    __slots__ = (
        "body_bytes",
        "cost",
        "input_reserved",
        "lane",
        "offered_s",
        "output_reserved",
        "priority_class",
        "request",
        "start_by_s",
        "state",
        "tenant",
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
        self.input_reserved = 0.0
        self.output_reserved = 0.0
        self.cost = 0.0

    @property
    def line(self) -> Line:
        """Its tenant's line in its lane."""
        return self.tenant.lines[self.lane]

    def sort_key(self) -> float:
        """Its place among the tenant's own requests; equal keys keep the order of arrival."""
        settings = self.priority_class.settings
        if settings.within == "deadline":
            return self.start_by_s
        if settings.within == "short-first":
            delay_s = settings.short_first_s_per_1k_tokens
            return self.offered_s + delay_s * self.request.prompt_tokens / 1000.0
        return 0.0


class Line(Account):
    """One tenant's requests in one lane: those waiting (a heap with late deletion), and the
    tenant's account there. Each lane keeps its own accounts, so that what a tenant is given late
    moves nobody's place among the requests in time."""

    __slots__ = ("_heap", "_lane", "_pushes", "live")

    def __init__(self, tenant: str, weight: float, lane: int) -> None:
        super().__init__(tenant, weight)
        self._lane = lane
        self._heap: list[tuple[float, int, Item]] = []
        self._pushes = 0
        self.live = 0

    def push(self, item: Item) -> None:
        self._pushes += 1
        self.live += 1
        heapq.heappush(self._heap, (item.sort_key(), self._pushes, item))

    def head(self) -> Item:
        """The next request. The line must not be empty."""
        heap = self._heap
        while not self._holds(heap[0][2]):
            heapq.heappop(heap)
        return heap[0][2]

    def removed(self) -> None:
        """One of the line's items left (its state or lane already says so)."""
        self.live -= 1
        if len(self._heap) > 2 * self.live + 16:
            self._heap = [entry for entry in self._heap if self._holds(entry[2])]
            heapq.heapify(self._heap)

    def _holds(self, item: Item) -> bool:
        return item.state is State.WAITING and item.lane == self._lane


class Tenant:
    """A tenant within one class."""

    __slots__ = ("lines", "name", "waiting", "waiting_bytes", "waiting_cost")

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.lines = (Line(name, weight, IN_TIME), Line(name, weight, LATE))
        self.waiting = 0
        self.waiting_bytes = 0
        self.waiting_cost = 0.0


class Lane(Account):
    """A class's requests that are still in time, or those that are late; and the class's account
    among the classes of its level."""

    __slots__ = ("index", "lines", "passed_since", "priority_class", "since_s")

    def __init__(self, priority_class: PriorityClass, index: int) -> None:
        super().__init__(priority_class.name, priority_class.settings.weight)
        self.priority_class = priority_class
        self.index = index
        self.lines: ActiveSet[Line] = ActiveSet()
        # Of the last dispatch from here, or of becoming non-empty: what ageing looks at.
        self.since_s = 0.0
        self.passed_since = 0

    def head(self) -> Item:
        """The next request of the tenant of least rank. The lane must not be empty."""
        line = self.lines.first()
        assert line is not None, "head() of an empty lane"
        return line.head()

    def add(self, item: Item) -> None:
        item.lane = self.index
        line = item.line
        line.push(item)
        if line.live == 1:
            self.lines.add(line)

    def remove(self, item: Item) -> None:
        """``item`` was taken out of this lane: its state or lane says so already."""
        line = item.tenant.lines[self.index]
        line.removed()
        if not line.live:
            self.lines.leave(line)


class PriorityClass:
    """A class: its lanes, its tenants, what is waiting and how fast it drains."""

    __slots__ = (
        "_prune_at",
        "_settings",
        "drain",
        "lanes",
        "last_dispatch_s",
        "name",
        "settings",
        "tenants",
        "waiting",
        "waiting_bytes",
        "waiting_cost",
    )

    def __init__(self, settings: ClassSettings, admission: AdmissionSettings) -> None:
        self.name = settings.name
        self.settings = settings
        self._settings = admission
        self.lanes = (Lane(self, IN_TIME), Lane(self, LATE))
        self.tenants: dict[str, Tenant] = {}
        self.drain = DrainMeter(admission.drain_window_s)
        self.last_dispatch_s = -math.inf
        self.waiting = 0
        self.waiting_bytes = 0
        self.waiting_cost = 0.0
        self._prune_at = 1024

    def tenant(self, name: str) -> Tenant:
        """The tenant's account, made when first seen."""
        account = self.tenants.get(name)
        if account is None:
            if len(self.tenants) >= self._prune_at:
                self._prune()
            account = self.tenants[name] = Tenant(name, self._settings.tenant_weight(name))
        return account

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in self.lanes)

    def entered(self, item: Item) -> None:
        """Count a new waiting item."""
        if not self.waiting:
            self.drain.start(item.offered_s)
        for holder in (self, item.tenant):
            holder.waiting += 1
            holder.waiting_bytes += item.body_bytes
            holder.waiting_cost += item.cost

    def left(self, item: Item, now_s: float, served: bool) -> None:
        """Count it out again, whether it was served or taken away."""
        for holder in (self, item.tenant):
            holder.waiting -= 1
            holder.waiting_bytes -= item.body_bytes
            holder.waiting_cost = holder.waiting_cost - item.cost if holder.waiting else 0.0
        if served:
            self.drain.served(item.cost, now_s)
        if not self.waiting:
            self.drain.stop(now_s)

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
            sharers = len(self.lanes[IN_TIME].lines) + (tenant.waiting == 0)
            ahead = min(ahead, tenant.waiting_cost * sharers)
        return ahead / rate if rate > 0 else math.inf

    def _prune(self) -> None:
        """Forget idle tenants whose return would lift them anyway: nothing changes for them."""
        floors = tuple(lane.lines.floor() for lane in self.lanes)
        for name, tenant in list(self.tenants.items()):
            if not tenant.waiting and all(
                not line.in_flight and line.service <= floor
                for line, floor in zip(tenant.lines, floors, strict=True)
            ):
                del self.tenants[name]
        self._prune_at = max(1024, 2 * len(self.tenants))
