"""SGLang's ``cache_aware`` router (sglang-router 0.3.2; the vLLM router's is the same rule).

Rule: when ``max - min > 64`` and ``max > 1.5 * min`` over requests in flight, the replica with
the fewest. Otherwise the best prefix match in an approximate tree of what was sent, if it covers
more than 0.3 of the prompt; else the replica with the least load. Every request is entered into
the tree. Defaults from ``RouterArgs`` of the wheel: cache_threshold 0.3, balance_abs_threshold
64, balance_rel_threshold 1.5, max_tree_size 2**26 characters (16.8 M tokens at 4 characters).

The wheel exposes the policy only inside its server process, so the rule is written down here;
the live comparison runs the real process. Knowledge: its own requests in flight, no metrics, no
KV events. Of several holders of the longest match the tree returns any; here, one at random.
"""

from __future__ import annotations

from load_tests.peers.indexes import DispatchIndex
from load_tests.peers.simple import CountingSystem
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet

CACHE_THRESHOLD = 0.3
BALANCE_ABS = 64
BALANCE_REL = 1.5
TREE_TOKENS = 2**26 // 4


class SglangCacheAware(CountingSystem):
    """Longest match unless badly imbalanced."""

    name = "sglang cache_aware"

    def start(self, fleet: Fleet) -> None:
        """An empty tree."""
        super().start(fleet)
        block_size = fleet.engines[0].config.block_size
        self._tree = DispatchIndex(self.replicas, TREE_TOKENS // block_size)

    def choose(self, request: SimRequest) -> int:
        """The rule above."""
        hashes = request.trace.block_hashes
        replica = self._pick(hashes)
        self._tree.add(replica, hashes)
        return replica

    def _pick(self, hashes: tuple[int, ...]) -> int:
        most, fewest = max(self.in_flight), min(self.in_flight)
        if most - fewest > BALANCE_ABS and most > BALANCE_REL * fewest:
            return self.least()
        matches = self._tree.match(hashes)
        best = max(matches)
        if hashes and best / len(hashes) > CACHE_THRESHOLD:
            return self.fleet.rng.choice([i for i, n in enumerate(matches) if n == best])
        return self.least()
