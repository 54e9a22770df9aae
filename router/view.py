"""What one decision reads: the candidates at one instant, and what they hold of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from router.held import NOTHING_HELD, Held
from router.snapshot import Columns, Snapshot
from router.types import Decision, RouteRequest


class Preferred(NamedTuple):
    """A choice that is made and not in force yet: the request, what the policy saw, and what it
    chose."""

    request: RouteRequest
    snapshot: Snapshot
    decision: Decision


Lookup = Callable[[tuple[int, ...]], Held]


class View:
    """Read by admission's limits and by the routing policy alike: one set of columns, and one
    look-up per prompt, however many rules ask. Good until anything is dispatched.

    ``eviction_age_s``: replica id → seconds since what its cache would lose next was used
    (infinite: it has space). ``keeping``: enough of what comes in came before for caches to be
    worth sparing; ``thrashing``: prefixes that come back are lost in between.
    """

    __slots__ = (
        "_by_urgency",
        "_held",
        "_lookup",
        "columns",
        "eviction_age_s",
        "keeping",
        "now_s",
        "preferred",
        "thrashing",
    )

    def __init__(
        self,
        now_s: float,
        columns: Columns,
        lookup: Lookup,
        eviction_age_s: Callable[[str], float],
        *,
        keeping: bool = True,
        thrashing: bool = False,
    ) -> None:
        self.now_s = now_s
        self.columns = columns
        self.eviction_age_s = eviction_age_s
        self.keeping = keeping
        self.thrashing = thrashing
        self._lookup = lookup
        self._held: dict[str, Held] = {}
        self._by_urgency: dict[int, Columns] = {}
        #: What the policy would choose of all candidates, once somebody has asked.
        self.preferred: Preferred | None = None

    @property
    def idle(self) -> bool:
        """Whether a candidate has no request at all."""
        return not all(self.columns.requests)

    def held(self, request: RouteRequest) -> Mapping[str, int]:
        """Replica id → leading blocks of the request's prompt that it holds (absent: none)."""
        return self.found(request).every

    def found(self, request: RouteRequest) -> Held:
        """The same as the index tells it: what many replicas hold, and the few that hold more."""
        if not request.block_hashes:
            return NOTHING_HELD
        found = self._held.get(request.request_id)
        if found is None:
            found = self._held[request.request_id] = self._lookup(request.block_hashes)
        return found

    def most_cached_tokens(self, request: RouteRequest) -> int:
        """Leading tokens of the prompt that its best holder has."""
        found, fleet = self.found(request), self.columns.fleet
        if fleet.block_size or not found:
            return found.most * fleet.block_size
        held = found.every
        sizes = zip(fleet.ids, fleet.block_sizes, strict=True)
        return max((held.get(rid, 0) * size for rid, size in sizes), default=0)

    def for_urgency(self, urgency: int) -> Columns:
        """The columns with only that work which goes before a request of ``urgency``."""
        if self.columns.urgencies is None:
            return self.columns
        found = self._by_urgency.get(urgency)
        if found is None:
            found = self._by_urgency[urgency] = self.columns.for_urgency(urgency)
        return found

    def least_busy(self) -> tuple[int, int]:
        """(requests, context tokens) in flight on the candidate with the fewest requests."""
        requests = self.columns.requests
        if not requests:
            return 0, 0
        fewest = min(requests)
        return fewest, self.columns.context_tokens[requests.index(fewest)]
