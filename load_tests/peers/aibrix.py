"""AIBrix's ``prefix-cache`` routing.

Rule: when ``max - min > 8`` over running requests, the replica with the fewest. Otherwise the
best prefix match among the replicas whose requests are at most mean + one standard deviation;
without a match, the fewest requests. Prefix knowledge: its own dispatches (here as many blocks
as the engine has); request counts: its own, current.
"""

from __future__ import annotations

import statistics

from load_tests.peers.indexes import DispatchIndex
from load_tests.peers.simple import CountingSystem
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet

IMBALANCE = 8


class AibrixPrefixCache(CountingSystem):
    """Best match among the replicas that are not overloaded."""

    name = "aibrix prefix-cache"

    def start(self, fleet: Fleet) -> None:
        """An empty table."""
        super().start(fleet)
        self._table = DispatchIndex(self.replicas, fleet.engines[0].config.blocks)

    def choose(self, request: SimRequest) -> int:
        """The rule above."""
        replica = self._pick(request.trace.block_hashes)
        self._table.add(replica, request.trace.block_hashes)
        return replica

    def _pick(self, hashes: tuple[int, ...]) -> int:
        counts = self.in_flight
        if max(counts) - min(counts) > IMBALANCE:
            return self.least()
        bound = statistics.fmean(counts) + statistics.pstdev(counts)
        matches = self._table.match(hashes)
        allowed = [index for index in range(self.replicas) if counts[index] <= bound]
        best = max((matches[index] for index in allowed), default=0)
        if best == 0:
            return self.least()
        return min(
            (index for index in allowed if matches[index] == best),
            key=lambda index: (counts[index], self.fleet.rng.random()),
        )
