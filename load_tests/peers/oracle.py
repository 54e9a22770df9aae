"""Oracles: perfect knowledge of every engine, now, as upper bounds for any router.

An oracle looks into the engines: their real KV contents, their queues, the prompts' unfinished
work and the true output lengths. One rule is not best by every measure, so there is a family:

* ``waste`` 0 minimises the request's own predicted first token; larger values also charge the
  fleet for the prefill it has to compute, which is what makes affinity pay later;
* ``backlog_steps`` holds requests back until an engine has room for them (late binding, which a
  router without a queue of its own cannot do), shortest predicted prefill first among those that
  can still meet the deadline; those that cannot go last.

The bench reports the best of the family under the name ``oracle``. :func:`pooled_hit_rate` is
the bound that no placement beats: one cache as large as all of them together.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from load_tests.peers.indexes import leading
from load_tests.sim.engine import Engine
from load_tests.sim.request import SimRequest
from load_tests.sim.system import BaseSystem, Fleet
from load_tests.traces.schema import TraceRequest

LOOK_AHEAD = 8


@dataclass(frozen=True, slots=True)
class OracleRule:
    """See the module. ``backlog_steps``: prefill steps an engine may have outstanding before
    requests are held back (None: never held)."""

    waste: float = 1.0
    backlog_steps: float | None = None
    ttft_slo_s: float = 5.0


class Oracle(BaseSystem):
    """Chooses by what will really happen next."""

    def __init__(self, rule: OracleRule) -> None:
        held = "" if rule.backlog_steps is None else f", held at {rule.backlog_steps:g}"
        self.name = f"oracle (waste {rule.waste:g}{held})"
        self._rule = rule

    def start(self, fleet: Fleet) -> None:
        """Nothing outstanding."""
        super().start(fleet)
        self._backlog_s = [0.0] * self.replicas
        self._waiting: list[tuple[float, int, SimRequest]] = []  # a heap, shortest first
        self._late: deque[SimRequest] = deque()

    def arrive(self, request: SimRequest) -> None:
        """Dispatch, or hold until an engine has room."""
        if self._rule.backlog_steps is None:
            self._dispatch(request, *self._best(request))
            return
        heapq.heappush(self._waiting, (self._best(request)[1], request.index, request))
        self._drain()

    def first_token(self, request: SimRequest) -> None:
        """The prompt's prefill is no longer outstanding."""
        assert isinstance(request.note, float)
        self._backlog_s[request.replica] -= request.note
        self._drain()

    def finished(self, request: SimRequest) -> None:
        """A place is free."""
        self._drain()

    def _best(self, request: SimRequest) -> tuple[int, float]:
        """(replica, seconds of prefill it costs there) with the least predicted cost."""
        best, best_cost, best_own = 0, float("inf"), 0.0
        for engine in self.fleet.engines:
            own = self._own_s(engine, request.trace)
            cost = self._backlog_s[engine.index] * self._slowdown(engine)
            cost += own * (self._slowdown(engine) + self._rule.waste)
            if cost < best_cost:
                best, best_cost, best_own = engine.index, cost, own
        return best, best_own

    def _own_s(self, engine: Engine, trace: TraceRequest) -> float:
        config = engine.config
        usable = min(len(trace.block_hashes), (trace.prompt_tokens - 1) // config.block_size)
        cached = engine.pool.match(trace.block_hashes[:usable]) * config.block_size
        new = trace.prompt_tokens - cached
        return engine.timing.prefill_s(new, cached, config.max_batched_tokens)

    def _slowdown(self, engine: Engine) -> float:
        """Decoding sequences lengthen every step of a prefill."""
        timing, decoding = engine.timing, engine.decoding
        chunk = engine.config.max_batched_tokens
        alone = timing.step_s(chunk, 0.0, 0, 0.0)
        return timing.step_s(chunk, 0.0, len(decoding), decoding.context) / alone

    def _dispatch(self, request: SimRequest, replica: int, own_s: float) -> None:
        request.note = own_s
        self._backlog_s[replica] += own_s
        self.fleet.dispatch(request, replica)

    def _drain(self) -> None:
        steps = self._rule.backlog_steps
        if steps is None:
            return
        engine = self.fleet.engines[0]
        limit = steps * engine.timing.step_s(engine.config.max_batched_tokens, 0.0, 0, 0.0)
        while (self._waiting or self._late) and min(self._backlog_s) < limit:
            if not self._dispatch_one(limit):
                return

    def _dispatch_one(self, limit: float) -> bool:
        """The shortest of those that are in time and have room where they are best off; a late
        one only where none of those looked at has."""
        looked: list[tuple[float, int, SimRequest]] = []
        chosen: tuple[SimRequest, int, float] | None = None
        while self._waiting and chosen is None and len(looked) < LOOK_AHEAD:
            request = heapq.heappop(self._waiting)[2]
            replica, own = self._best(request)
            if self.fleet.now_s + own > request.arrival_s + self._rule.ttft_slo_s:
                self._late.append(request)
            elif self._backlog_s[replica] < limit:
                chosen = (request, replica, own)
            else:
                looked.append((own, request.index, request))
        for entry in looked:
            heapq.heappush(self._waiting, entry)
        if chosen is None and self._late:
            replica, own = self._best(self._late[0])
            if self._backlog_s[replica] < limit:
                chosen = (self._late.popleft(), replica, own)
        if chosen is None:
            return False
        self._dispatch(*chosen)
        return True


def pooled_hit_rate(requests: Iterable[TraceRequest], blocks: int, block_size: int) -> float:
    """Token hit rate of one LRU cache of ``blocks``, requests in order, no time passing.

    Reused as in the engine: full blocks, never the whole prompt.
    """
    held: OrderedDict[int, None] = OrderedDict()
    hit = total = 0
    for request in requests:
        hashes = request.block_hashes
        usable = min(len(hashes), (request.prompt_tokens - 1) // block_size)
        hit += leading(hashes[:usable], held) * block_size
        total += request.prompt_tokens
        for block_hash in reversed(hashes):
            held[block_hash] = None
            held.move_to_end(block_hash)
        while len(held) > blocks:
            held.popitem(last=False)
    return hit / total if total else 0.0
