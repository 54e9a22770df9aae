"""Several gateways before one fleet: each with its own router, index, ledger and queue.

The front door deals requests out in turn. Every gateway hears every engine's KV events; of the
others' work it knows what the replicas tell it (``tell_s`` apart, as the real ones do), or
nothing at all (``tell_s`` None). ``restart_at_s`` replaces the first gateway by a fresh one that
knows only what a replay of the engines' events tells it; what the old one has dispatched ends
with the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from load_tests.sim.blocks import KvOp
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet, PolledStats
from load_tests.sim.weir_system import WeirSystem
from router.types import ReplicaLoad, ReplicaStats


class SeveralGateways:
    """Behaves as one system; ``make`` gives one gateway."""

    def __init__(
        self,
        make: Callable[[], WeirSystem],
        count: int,
        tell_s: float | None = 0.05,
        restart_at_s: float | None = None,
    ) -> None:
        self._make = make
        self._gateways = [make() for _ in range(count)]
        self._everyone = list(self._gateways)  # with those that only end what they began
        self._owner: dict[int, WeirSystem] = {}
        self._log: list[tuple[int, list[KvOp]]] = []
        self._tell_s = tell_s
        self._restart_at_s = restart_at_s
        self._telling = False
        self._turn = 0
        self.name = f"{count} gateways"
        self.knowledge = self._gateways[0].knowledge

    def start(self, fleet: Fleet) -> None:
        """Start each."""
        self._fleet = fleet
        for gateway in self._gateways:
            gateway.start(fleet)
        if self._restart_at_s is not None:
            fleet.after(self._restart_at_s, self._restart)

    def arrive(self, request: SimRequest) -> None:
        """The next gateway in turn takes it."""
        gateway = self._gateways[self._turn % len(self._gateways)]
        self._turn += 1
        self._owner[request.index] = gateway
        if self._tell_s is not None and not self._telling:
            self._telling = True
            self._fleet.after(self._tell_s, self._tell)
        gateway.arrive(request)

    def first_token(self, request: SimRequest) -> None:
        """To the gateway that sent it."""
        self._owner[request.index].first_token(request)

    def prompt_ready(self, request: SimRequest) -> None:
        """To the gateway that sent it."""
        self._owner[request.index].prompt_ready(request)

    def transferred(self, request: SimRequest, tokens: int, transfer_s: float) -> None:
        """To the gateway that sent it."""
        self._owner[request.index].transferred(request, tokens, transfer_s)

    def finished(self, request: SimRequest) -> None:
        """To the gateway that sent it."""
        self._owner.pop(request.index).finished(request)

    def stepped(self, replica: int) -> None:
        """To all."""
        for gateway in self._gateways:
            gateway.stepped(replica)

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """To all; kept for those to come."""
        if self._restart_at_s is not None:
            self._log.append((replica, ops))
        for gateway in self._gateways:
            gateway.kv_events(replica, ops)

    def stats(self, stats: PolledStats) -> None:
        """To all, with what the others have in flight there as they were last told."""
        for gateway in self._gateways:
            gateway.stats(stats)
        if self._tell_s is not None:
            self._tell_of(stats.replica)

    def _tell(self, _: Any) -> None:
        for replica in range(len(self._fleet.engines)):
            self._tell_of(replica)
        self._telling = bool(self._owner)
        if self._telling:
            self._fleet.after(self._tell_s or 0.0, self._tell)

    def _tell_of(self, replica: int) -> None:
        name, now_s = f"r{replica}", self._fleet.now_s
        engine = self._fleet.engines[replica]
        own = [gateway.router.own_load(name) for gateway in self._everyone]
        for gateway, mine in zip(self._everyone, own, strict=True):
            if gateway not in self._gateways:
                continue
            stats = ReplicaStats(
                engine.running, engine.waiting, engine.pool.used, now_s, _others(own, mine)
            )
            gateway.router.update_stats(name, stats)
            gateway.dispatcher.wake()

    def _restart(self, _: Any) -> None:
        fresh = self._make()
        fresh.start(self._fleet)
        for replica, ops in self._log:
            fresh.kv_events(replica, ops)
        self._gateways[0] = fresh
        self._everyone.append(fresh)


def _others(own: list[ReplicaLoad], mine: ReplicaLoad) -> ReplicaLoad:
    return ReplicaLoad(
        sum(load.requests for load in own) - mine.requests,
        sum(load.prefill_tokens for load in own) - mine.prefill_tokens,
        sum(load.decode_tokens for load in own) - mine.decode_tokens,
        sum(load.context_tokens for load in own) - mine.context_tokens,
    )
