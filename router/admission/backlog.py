"""All that waits, in the order in which it should run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from router.admission.engine_priority import engine_ranks, urgency_of
from router.admission.fair import ActiveSet
from router.admission.limit import Standing, build_limits, narrowest, narrowing
from router.admission.share import FULL_SHARE
from router.admission.waiting import (
    IN_TIME,
    LATE,
    Age,
    Item,
    PriorityClass,
    State,
    TenantWeights,
)
from weir.errors import BadRequestError
from weir.settings.admission import AdmissionSettings, Share


class Backlog:
    """Classes, and the levels that rank them: one level per urgency, served strictly one after
    the other; the classes of a level share by weight."""

    def __init__(self, settings: AdmissionSettings, weights: TenantWeights | None = None) -> None:
        self.classes = {c.name: PriorityClass(c, settings, weights) for c in settings.classes}
        self.ranks = engine_ranks(c.urgency for c in settings.classes)
        urgencies = sorted({c.urgency for c in settings.classes})
        self._levels: dict[int, ActiveSet[PriorityClass]] = {o: ActiveSet() for o in urgencies}
        self._ageing_after_s = settings.ageing_after_s
        self._ageing_every = settings.ageing_every
        #: Class → its place among the urgencies of all; class → the classes before it.
        self._urgencies = {
            c.name: urgency_of(self.ranks[c.urgency, IN_TIME]) for c in settings.classes
        }
        self._before = {
            c.name: tuple(
                other for other in self.classes.values() if other.settings.urgency < c.urgency
            )
            for c in settings.classes
        }
        self._limits = narrowing(build_limits(settings.limits))
        self._dispatches = 0
        self.waiting = 0

    def class_named(self, name: str) -> PriorityClass:
        """Raises BadRequestError, which names the known classes."""
        found = self.classes.get(name)
        if found is None:
            known = ", ".join(self.classes)
            raise BadRequestError(
                f"unknown priority class {name!r}; known: {known}", param="priority_class"
            )
        return found

    def rank(self, item: Item) -> int:
        """For the engine: 0 first; within an urgency, late requests after those in time."""
        return self.ranks[item.priority_class.settings.urgency, item.lane]

    def levels(self) -> Iterator[list[PriorityClass]]:
        """The classes of each level that have something waiting, the one of least rank first."""
        for level in self._levels.values():
            if len(level):
                yield level.ranked()

    def starved(self, now_s: float) -> tuple[Item, int] | None:
        """The next request of what was passed over longest (a class, or the late requests of
        one), and by how many dispatches, once that is long enough for ageing."""
        found: list[tuple[Age, PriorityClass, int]] = []
        for c in self.classes.values():
            if c.waiting:
                found.append((c.ages[IN_TIME], c, IN_TIME))
            if len(c.late):
                found.append((c.ages[LATE], c, LATE))
        if len(found) < 2:
            return None
        since, c, lane = min(found, key=lambda entry: entry[0].at_dispatch)
        passed = self._dispatches - since.at_dispatch
        if passed < self._ageing_every or now_s - since.since_s < self._ageing_after_s:
            return None
        return (c.late_head() if lane == LATE else c.head()), passed

    def share(self, item: Item, now_s: float) -> Share:
        """How far ``item`` may fill a replica, by all limits in force."""
        c, tenant = item.priority_class, item.tenant
        standing = Standing(
            c.settings.share,
            not self._before[c.name],
            self._urgent_idle_s(c, now_s),
            tenant.weight,
            tenant.in_flight,
            c.in_flight,
            c.flying,
        )
        return narrowest(self._limits, standing, FULL_SHARE)

    def _urgent_idle_s(self, c: PriorityClass, now_s: float) -> float:
        """See :class:`Standing`."""
        idle_s = math.inf
        for other in self._before[c.name]:
            if other.in_flight:
                return 0.0
            idle_s = min(idle_s, now_s - other.last_dispatch_s)
        return idle_s

    def urgency(self, c: PriorityClass) -> int:
        """Its place among the urgencies of all classes; 0 is the most urgent."""
        return self._urgencies[c.name]

    def enter(self, item: Item, now_s: float) -> None:
        """``item`` waits from now on, in the lane that it says."""
        c = item.priority_class
        if not c.waiting:
            c.ages[IN_TIME].restart(now_s, self._dispatches)
        if item.lane == LATE and not len(c.late):
            c.ages[LATE].restart(now_s, self._dispatches)
        self.waiting += 1
        c.entered(item)
        if c.waiting == 1:
            self._levels[c.settings.urgency].add(c)

    def pass_by(self, item: Item, now_s: float) -> None:
        """:meth:`enter` and :meth:`dispatch` in one, while nothing waits: with nobody to be
        compared with, ``item`` needs no place in any order, and nobody is passed over."""
        c = item.priority_class
        self._levels[c.settings.urgency].passed(c)
        c.active.passed(item.tenant)
        c.drain.passed(item.cost)
        self._run(item, now_s)

    def now_late(self, item: Item, now_s: float) -> None:
        """A waiting ``item`` can no longer be in time."""
        c = item.priority_class
        if not len(c.late):
            c.ages[LATE].restart(now_s, self._dispatches)
        c.now_late(item)

    def drop(self, item: Item, now_s: float) -> None:
        """``item`` waits no more and will not run."""
        item.state = State.GONE
        self._leave(item, now_s, served=False)

    def dispatch(self, item: Item, now_s: float) -> None:
        """``item`` waits no more and runs: its expected cost is reserved on its accounts."""
        c, tenant = item.priority_class, item.tenant
        self._dispatches += 1
        c.ages[IN_TIME].restart(now_s, self._dispatches)
        # What overtakes a late request that is held back does not take its turn of ageing, too.
        if item.lane == LATE and item is tenant.queues[LATE].head():
            c.ages[LATE].restart(now_s, self._dispatches)
        self._run(item, now_s)
        self._leave(item, now_s, served=True)
        if tenant in c.active:
            c.active.moved_on(tenant)
        level = self._levels[c.settings.urgency]
        if c in level:
            level.moved_on(c)

    def _run(self, item: Item, now_s: float) -> None:
        c, tenant = item.priority_class, item.tenant
        item.state = State.IN_FLIGHT
        c.last_dispatch_s = now_s
        c.flying += not tenant.in_flight
        tenant.reserve(item.cost)
        c.reserve(item.cost)

    def _leave(self, item: Item, now_s: float, served: bool) -> None:
        c = item.priority_class
        self.waiting -= 1
        c.left(item, now_s, served)
        if not c.waiting:
            self._levels[c.settings.urgency].leave(c)
