"""Plugs weir's router into Ray Serve's ``RequestRouter``: the only file here that imports Ray.

The gateway sends a :class:`~router.subscription.Subscription` through ``handle.choose_replica``.
From then on its own :class:`~router.router.Router` follows Serve's replica set, one set for each
pool of the model, and decides for itself, because choosing and reserving are one synchronous step
there. Nothing else of weir goes through a handle of a model's deployment.
"""

from __future__ import annotations

from weakref import WeakSet

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from router.subscription import Follower, Subscription
from router.types import USUAL_ATTENTION_TOKENS, KvFeed, ReplicaInfo


class WeirRequestRouter(RequestRouter):  # type: ignore[misc]
    """See the module's docstring."""

    def initialize_state(self) -> None:
        """Serve calls this once."""
        self._followers: WeakSet[Follower] = WeakSet()
        self._infos: tuple[ReplicaInfo, ...] = ()

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Serve announces the replica set whenever it changes."""
        super().update_replicas(replicas)
        self._infos = tuple(_info(replica) for replica in replicas)
        for follower in tuple(self._followers):
            follower.set_replicas(self._infos)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Hand a subscription the replica set; any replica will do."""
        arguments = pending_request.args if pending_request else ()
        if arguments and isinstance(arguments[0], Subscription):
            follower = arguments[0].follower
            self._followers.add(follower)
            follower.set_replicas(self._infos)
        return [list(candidate_replicas)]


def _info(replica: RunningReplica) -> ReplicaInfo:
    metadata = replica.replica_metadata
    feed = KvFeed(**metadata["kv_feed"]) if metadata.get("kv_feed") else None
    return ReplicaInfo(
        replica_id=replica.replica_id.unique_id,
        address=metadata.get("address", ""),
        kv_blocks_total=metadata.get("kv_blocks_total", 0),
        block_size=metadata.get("block_size", 16),
        max_running=metadata.get("max_num_seqs", 256),
        max_model_len=metadata.get("max_model_len", 0),
        tasks=frozenset(metadata.get("tasks", ())),
        kv_events=feed is not None,
        kv_feed=feed,
        yielding_step_tokens=metadata.get("yielding_step_tokens", 0),
        attention_tokens=metadata.get("attention_tokens", USUAL_ATTENTION_TOKENS),
        role=metadata.get("role", "mixed"),
        pool=metadata.get("pool", ""),
        changes_role=metadata.get("changes_role", False),
        started_s=metadata.get("started_s", 0.0),
    )
