"""llm-d's default scoring profile (Gateway API inference extension).

Rule: prefix x 3 + queue x 2 + KV utilisation x 2, highest sum wins, ties at random. Prefix: the
matched share of the prompt's blocks. Queue: ``(max - q) / (max - min)`` over waiting requests, 1
when all are equal. KV: ``1 - utilisation``. Metrics are polled every 50 ms. Flow control is off
by default and saturation sheds only requests of negative priority, of which there are none.

Two rows: the default prefix scorer knows its own dispatches (here with a perfectly tuned size:
as many blocks as the engine has, and no cap on the matched length), the precise one hears KV
events (2 ms after the step).
"""

from __future__ import annotations

from load_tests.peers.indexes import DispatchIndex, EventIndex
from load_tests.sim.blocks import KvOp
from load_tests.sim.request import SimRequest
from load_tests.sim.system import BaseSystem, Fleet, Knowledge, PolledStats

PREFIX, QUEUE, KV = 3.0, 2.0, 2.0
POLL_S = 0.05


class LlmD(BaseSystem):
    """Weighted scores over polled metrics."""

    name = "llm-d"
    knowledge = Knowledge(stats_interval_s=POLL_S)

    def start(self, fleet: Fleet) -> None:
        """Nothing is known."""
        super().start(fleet)
        self._total = fleet.engines[0].config.blocks
        self._waiting = [0] * self.replicas
        self._used = [0] * self.replicas
        self._index: DispatchIndex | EventIndex = DispatchIndex(self.replicas, self._total)

    def arrive(self, request: SimRequest) -> None:
        """Dispatch at once to the highest sum."""
        hashes = request.trace.block_hashes
        matches = self._index.match(hashes)
        most, fewest = max(self._waiting), min(self._waiting)
        scores = []
        for replica, matched in enumerate(matches):
            prefix = matched / len(hashes) if hashes else 0.0
            queue = (most - self._waiting[replica]) / (most - fewest) if most > fewest else 1.0
            free = 1 - min(1.0, self._used[replica] / self._total)
            scores.append(PREFIX * prefix + QUEUE * queue + KV * free)
        best = max(scores)
        replica = self.fleet.rng.choice([i for i, score in enumerate(scores) if score == best])
        if isinstance(self._index, DispatchIndex):
            self._index.add(replica, hashes)
        self.fleet.dispatch(request, replica)

    def stats(self, stats: PolledStats) -> None:
        """What the metrics endpoint said."""
        self._waiting[stats.replica] = stats.waiting
        self._used[stats.replica] = stats.kv_blocks_used


class LlmDPrecise(LlmD):
    """The same with the precise prefix scorer."""

    name = "llm-d precise"
    knowledge = Knowledge(stats_interval_s=POLL_S, kv_event_delay_s=0.002)

    def start(self, fleet: Fleet) -> None:
        """An index fed by events."""
        super().start(fleet)
        self._index = self._events = EventIndex(self.replicas)

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """Keep the index."""
        self._events.apply(replica, ops)
