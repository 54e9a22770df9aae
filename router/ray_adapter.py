"""Plugs weir's router into Ray Serve's ``RequestRouter``: the only file here that imports Ray.

The gateway calls ``handle.choose_replica(call)``. Serve hands the call back here, with the
replicas that it considers running; the gateway's own :class:`~router.router.Router` decides and
reserves in one synchronous step. Nothing is sent to a replica: the token bytes take another way.
"""

from __future__ import annotations

import time
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from router.router import Router
from router.routing_call import RoutingCall
from router.types import ReplicaInfo


class WeirRequestRouter(RequestRouter):  # type: ignore[misc]
    """Serve's side of the adapter; holds no policy of its own."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Serve passes ``request_router_kwargs`` here: there are none."""
        self._infos: tuple[ReplicaInfo, ...] = ()
        self._told: Router | None = None

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Serve announces the replica set whenever it changes."""
        super().update_replicas(replicas)
        since = {info.replica_id: info.since_s for info in self._infos}
        now = time.monotonic()
        self._infos = tuple(
            _info(replica, since.get(replica.replica_id.unique_id, now))
            for replica in replicas
            if replica.replica_metadata.get("address")
        )
        self._told = None

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Let the call's router decide among the candidates."""
        call = pending_request.args[0] if pending_request and pending_request.args else None
        if not isinstance(call, RoutingCall):
            return [list(candidate_replicas)]
        if self._told is not call.router:
            call.router.set_replicas(self._infos)
            self._told = call.router
        if call.request is None:
            return [list(candidate_replicas)]
        call.reservation = call.router.choose(call.request, call.exclude)
        chosen = call.reservation.replica_id
        return [[r for r in candidate_replicas if r.replica_id.unique_id == chosen]]


def _info(replica: RunningReplica, since_s: float) -> ReplicaInfo:
    metadata = replica.replica_metadata
    return ReplicaInfo(
        replica_id=replica.replica_id.unique_id,
        address=metadata["address"],
        kv_blocks_total=metadata["kv_blocks_total"],
        block_size=metadata["block_size"],
        max_running=metadata["max_num_seqs"],
        max_model_len=metadata["max_model_len"],
        tasks=frozenset(metadata["tasks"]),
        since_s=since_s,
    )
