"""Ray Serve LLM 2.60's ``PrefixCacheAffinityRouter``, over the installed ray's own prefix tree.

Rule: imbalanced when ``max queue - min queue > imbalanced_threshold`` (default infinity, so
never): power of two choices. Otherwise, if the matched share of the prompt is below 0.1, the
replicas with the smallest trees, else the replicas that hold the match; among those the one with
the shortest queue. Eviction of the tree is off by default. The prompt is entered once routed.

``PrefixTree`` is taken from ``ray.llm``'s module and used in-process (the release puts the same
class into an actor). It works on text, so every block becomes one character; shares and sizes
keep their proportions. Without ray, the same rule runs over this package's own index, which
then says so in its name. Knowledge: requests in flight per replica (the queue-length cache).
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from load_tests.peers.indexes import DispatchIndex
from load_tests.peers.simple import CountingSystem
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet

MATCH_RATE = 0.1
_MODULE = "ray.llm._internal.serve.routing_policies.prefix_aware.prefix_tree"
_SURROGATES = (0xD800, 0xE000)
_LAST = 0x10FFFF


class RayPrefixAffinity(CountingSystem):
    """Longest match over ray's tree."""

    name = "ray prefix-affinity"

    def start(self, fleet: Fleet) -> None:
        """An empty tree that knows all replicas."""
        super().start(fleet)
        self._letters: dict[int, str] = {}
        self._tree: Any = _ray_tree()
        if self._tree is None:
            self.name = "ray prefix-affinity (own tree)"
            self._own = DispatchIndex(self.replicas, 1 << 40)
        else:
            self._tree.add_tenants([str(index) for index in range(self.replicas)], 0.0)

    def choose(self, request: SimRequest) -> int:
        """The rule above."""
        hashes = request.trace.block_hashes
        candidates = self._own_rule(hashes) if self._tree is None else self._ray_rule(hashes)
        fewest = min(self.in_flight[index] for index in candidates)
        shortest = [index for index in candidates if self.in_flight[index] == fewest]
        replica = self.fleet.rng.choice(shortest)
        if self._tree is None:
            self._own.add(replica, hashes)
        else:
            self._tree.insert(self._text(hashes), str(replica), self.fleet.now_s)
        return replica

    def _ray_rule(self, hashes: tuple[int, ...]) -> list[int]:
        text = self._text(hashes)
        names = [str(index) for index in range(self.replicas)]
        matched, holders = self._tree.prefix_match(text, names)
        if not text or len(matched) / len(text) < MATCH_RATE:
            holders = self._tree.get_smallest_tenants()
        return [int(name) for name in holders or names]

    def _own_rule(self, hashes: tuple[int, ...]) -> list[int]:
        matches = self._own.match(hashes)
        best = max(matches)
        if not hashes or best / len(hashes) < MATCH_RATE:
            sizes = [self._own.size(index) for index in range(self.replicas)]
            return [index for index, size in enumerate(sizes) if size == min(sizes)]
        return [index for index, count in enumerate(matches) if count == best]

    def _text(self, hashes: tuple[int, ...]) -> str:
        letters = self._letters
        out = []
        for block_hash in hashes:
            letter = letters.get(block_hash)
            if letter is None:
                letter = letters[block_hash] = _letter(len(letters))
            out.append(letter)
        return "".join(out)


def _letter(number: int) -> str:
    code = 0x100 + number
    if code >= _SURROGATES[0]:
        code += _SURROGATES[1] - _SURROGATES[0]
    if code > _LAST:
        # A million different blocks; let the oldest names be used again.
        code = 0x100 + number % 0xD000
    return chr(code)


def _ray_tree() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ray's own, on import
            return importlib.import_module(_MODULE).PrefixTree()
    except ImportError:
        return None
