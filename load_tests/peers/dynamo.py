"""NVIDIA Dynamo's KV router (ai-dynamo 1.3.1), its published cost over KV events.

Rule, in blocks, lowest cost wins, ties at random (temperature 0):
``adjusted = max(active_prefill + prompt - credit * overlap, 0)``;
``cost = prefill_load_scale * adjusted + active_decode + incoming_active``, where active_prefill
are the prompt tokens in prefill on the worker (cached ones not counted) and active_decode +
incoming_active the distinct blocks of its active sequences with the new one. Defaults of the
wheel's ``KvRouterConfig``: credit 1, scale 1, temperature 0, use_kv_events, active blocks
tracked, output blocks not, ``router_queue_threshold`` 16 with fcfs: when every worker has more
than 16 x max_num_batched_tokens of prefill outstanding, requests wait in the router.

The wheel's ``SelectionService`` hears engines over ZMQ in real time, which simulated time cannot
feed, so the rule runs over this package's event index. ``python -m dynamo.replay`` on the same
file is the check from outside. Knowledge: KV events 5 ms after the step, first tokens and ends
of its own requests at once.
"""

from __future__ import annotations

from collections import Counter, deque

from load_tests.peers.indexes import EventIndex, leading
from load_tests.sim.blocks import KvOp
from load_tests.sim.request import SimRequest
from load_tests.sim.system import BaseSystem, Fleet, Knowledge

QUEUE_THRESHOLD = 16.0


class DynamoKvRouter(BaseSystem):
    """Least cost of prefill and active blocks."""

    name = "dynamo kv_router"
    knowledge = Knowledge(kv_event_delay_s=0.005)

    def __init__(self, prefill_load_scale: float = 1.0, credit: float = 1.0) -> None:
        self._scale = prefill_load_scale
        self._credit = credit

    def start(self, fleet: Fleet) -> None:
        """Nothing is active."""
        super().start(fleet)
        engine = fleet.engines[0].config
        self._block_size = engine.block_size
        self._limit = QUEUE_THRESHOLD * engine.max_batched_tokens
        self._index = EventIndex(self.replicas)
        self._prefill = [0] * self.replicas
        self._blocks: list[Counter[int]] = [Counter() for _ in range(self.replicas)]
        self._partial = [0] * self.replicas
        self._queue: deque[SimRequest] = deque()

    def arrive(self, request: SimRequest) -> None:
        """Route at once unless every worker's prefill is over the threshold."""
        self._queue.append(request)
        self._drain()

    def _drain(self) -> None:
        while self._queue and min(self._prefill) <= self._limit:
            self._route(self._queue.popleft())

    def _route(self, request: SimRequest) -> None:
        hashes = request.trace.block_hashes
        prompt = request.trace.prompt_tokens
        matches = self._index.match(hashes)
        costs = []
        for replica, overlap in enumerate(matches):
            cached = self._credit * overlap * self._block_size
            adjusted = max(self._prefill[replica] + prompt - cached, 0) / self._block_size
            active = self._blocks[replica]
            incoming = len(hashes) - leading(hashes, active) + 1
            held = len(active) + self._partial[replica]
            costs.append(self._scale * adjusted + held + incoming)
        least = min(costs)
        replica = self.fleet.rng.choice([i for i, cost in enumerate(costs) if cost == least])
        new = max(0, prompt - matches[replica] * self._block_size)
        request.note = new
        self._prefill[replica] += new
        self._blocks[replica].update(hashes)
        self._partial[replica] += 1
        self.fleet.dispatch(request, replica)

    def first_token(self, request: SimRequest) -> None:
        """The prefill is over."""
        assert isinstance(request.note, int)
        self._prefill[request.replica] -= request.note
        self._drain()

    def finished(self, request: SimRequest) -> None:
        """The sequence's blocks are no longer active."""
        active = self._blocks[request.replica]
        for block_hash in request.trace.block_hashes:
            if active[block_hash] == 1:
                del active[block_hash]
            else:
                active[block_hash] -= 1
        self._partial[request.replica] -= 1

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """Keep the index."""
        self._index.apply(replica, ops)
