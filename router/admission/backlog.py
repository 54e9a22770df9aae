"""All that waits, in the order in which it should run."""

from __future__ import annotations

from collections.abc import Iterator

from router.admission.capacity import FULL_SHARE, Share
from router.admission.engine_priority import engine_ranks
from router.admission.fair import ActiveSet
from router.admission.settings import AdmissionSettings
from router.admission.waiting import IN_TIME, LATE, Item, Lane, PriorityClass, State
from weir.errors import BadRequestError


class Backlog:
    """Classes, their lanes, and the levels that rank the lanes.

    A level holds the lanes that share by weight: those of the classes of one order, in time or
    late. Levels are served strictly one after the other.
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self.classes = {c.name: PriorityClass(c, settings) for c in settings.classes}
        self.ranks = engine_ranks(c.order for c in settings.classes)
        self._levels: dict[tuple[int, int], ActiveSet[Lane]] = {
            key: ActiveSet() for key in self.ranks
        }
        self._ageing_after_s = settings.ageing_after_s
        self._ageing_every = settings.ageing_every
        self._head_room_s = settings.head_room_s
        self._first_order = min(c.order for c in settings.classes)
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

    def rank(self, lane: Lane) -> int:
        """The lane's place among the levels, 0 first."""
        return self.ranks[lane.priority_class.settings.order, lane.index]

    def levels(self) -> Iterator[list[Lane]]:
        """The non-empty lanes of each non-empty level, the lane of least rank first."""
        for level in self._levels.values():
            if len(level):
                yield level.ranked()

    def starved(self, now_s: float) -> tuple[Lane, int] | None:
        """The lane passed over longest, and by how many dispatches, once that is long enough
        for ageing."""
        lanes = [lane for level in self._levels.values() for lane in level]
        if len(lanes) < 2:
            return None
        lane = min(lanes, key=lambda lane: lane.passed_since)
        passed = self._dispatches - lane.passed_since
        if passed < self._ageing_every or now_s - lane.since_s < self._ageing_after_s:
            return None
        return lane, passed

    def share(self, item: Item, now_s: float) -> Share:
        """How far ``item`` may fill a replica: its class's share while a class of lower order is
        in flight or was served lately, otherwise everything (the first order has no class before
        it, and keeps to its share)."""
        settings = item.priority_class.settings
        for other in self.classes.values():
            if other.settings.order < settings.order and (
                other.in_flight or now_s - other.last_dispatch_s < self._head_room_s
            ):
                return settings.share
        return settings.share if settings.order == self._first_order else FULL_SHARE

    def enter(self, item: Item, late: bool, now_s: float) -> None:
        """``item`` waits from now on."""
        self.waiting += 1
        item.priority_class.entered(item)
        self._into_lane(item, LATE if late else IN_TIME, now_s)

    def now_late(self, item: Item, now_s: float) -> None:
        """A waiting ``item`` can no longer be in time."""
        # The new lane first: the old one's bookkeeping looks at where the item now is.
        self._into_lane(item, LATE, now_s)
        self._out_of_lane(item, IN_TIME)

    def drop(self, item: Item, now_s: float) -> None:
        """``item`` waits no more and will not run."""
        item.state = State.GONE
        self._leave(item, now_s, served=False)

    def dispatch(self, item: Item, now_s: float) -> None:
        """``item`` waits no more and runs: its expected cost is reserved on its accounts."""
        lane, line = item.priority_class.lanes[item.lane], item.line
        self._dispatches += 1
        lane.since_s = now_s
        lane.passed_since = self._dispatches
        item.priority_class.last_dispatch_s = now_s
        item.state = State.IN_FLIGHT
        self._leave(item, now_s, served=True)
        line.reserve(item.cost)
        lane.reserve(item.cost)
        if line in lane.lines:
            lane.lines.moved_on(line)
        level = self._level(lane)
        if lane in level:
            level.moved_on(lane)

    def _leave(self, item: Item, now_s: float, served: bool) -> None:
        self.waiting -= 1
        item.priority_class.left(item, now_s, served)
        self._out_of_lane(item, item.lane)

    def _into_lane(self, item: Item, index: int, now_s: float) -> None:
        lane = item.priority_class.lanes[index]
        if not len(lane.lines):
            lane.since_s = now_s
            lane.passed_since = self._dispatches
            self._level(lane).add(lane)
        lane.add(item)

    def _out_of_lane(self, item: Item, index: int) -> None:
        lane = item.priority_class.lanes[index]
        lane.remove(item)
        if not len(lane.lines):
            self._level(lane).leave(lane)

    def _level(self, lane: Lane) -> ActiveSet[Lane]:
        return self._levels[lane.priority_class.settings.order, lane.index]
