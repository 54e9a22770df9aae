"""Plugs weir's router into Ray Serve's ``RequestRouter``: the only file here that imports Ray.

Two uses, both on Serve's public surface:

- The gateway sends a :class:`~router.subscription.Subscription` through ``handle.choose_replica``
  once. From then on its own :class:`~router.router.Router` follows Serve's replica set; it decides
  for itself, because choosing and reserving are one synchronous step there.
- Calls through a Serve handle are routed here, by any of weir's policies (``policy`` and
  ``params`` in ``request_router_kwargs``), each counted until Serve says that it has completed.
"""

from __future__ import annotations

import random
import time
from typing import Any
from weakref import WeakSet

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

import router.scorers  # noqa: F401 - registers the policies
from router.ledger import Reservation
from router.policy import build_policy
from router.router import Router
from router.subscription import Subscription
from router.types import USUAL_ATTENTION_TOKENS, KvFeed, ReplicaInfo, RouteRequest

# A call that was decided but never sent (cancelled in between) is forgotten after this long.
_UNSENT_S = 30.0
_CALL_TOKENS = 256


class WeirRequestRouter(RequestRouter):  # type: ignore[misc]
    """See the module's docstring."""

    def initialize_state(
        self, policy: str = "least-outstanding-tokens", params: dict[str, Any] | None = None
    ) -> None:
        """Serve passes ``request_router_kwargs`` here."""
        self._router = Router(build_policy(policy, params), time.monotonic, random.Random())
        self._followers: WeakSet[Router] = WeakSet()
        self._infos: tuple[ReplicaInfo, ...] = ()
        self._unsent: dict[str, tuple[float, Reservation]] = {}
        self._sent: dict[str, Reservation] = {}

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Serve announces the replica set whenever it changes."""
        super().update_replicas(replicas)
        since = {info.replica_id: info.since_s for info in self._infos}
        now = time.monotonic()
        self._infos = tuple(
            _info(replica, since.get(replica.replica_id.unique_id, now)) for replica in replicas
        )
        for follower in (self._router, *self._followers):
            follower.set_replicas(self._infos)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The policy's choice first, the others behind it in case it does not accept."""
        arguments = pending_request.args if pending_request else ()
        if arguments and isinstance(arguments[0], Subscription):
            follower = arguments[0].router
            self._followers.add(follower)
            follower.set_replicas(self._infos)
            return [list(candidate_replicas)]
        if pending_request is None:
            return [list(candidate_replicas)]
        chosen = self._decide(pending_request.metadata.internal_request_id)
        first = [r for r in candidate_replicas if r.replica_id.unique_id == chosen]
        others = [r for r in candidate_replicas if r.replica_id.unique_id != chosen]
        return [first, others]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Serve has sent the call."""
        call = pending_request.metadata.internal_request_id
        if held := self._unsent.pop(call, None):
            self._sent[call] = held[1]

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Serve says that the call has ended, however."""
        reservation = self._sent.pop(internal_request_id, None)
        if reservation is None and (held := self._unsent.pop(internal_request_id, None)):
            reservation = held[1]  # Serve does not report each call as routed
        if reservation is not None:
            reservation.release()

    def _decide(self, call: str) -> str:
        now = time.monotonic()
        for old, (at_s, reservation) in list(self._unsent.items()):
            if old == call or now - at_s > _UNSENT_S:
                reservation.release()
                del self._unsent[old]
        request = RouteRequest(
            request_id=call,
            model="",
            tenant="",
            prompt_tokens=_CALL_TOKENS,
            max_output_tokens=_CALL_TOKENS,
            expected_output_tokens=_CALL_TOKENS,
            arrival_s=now,
        )
        reservation = self._router.choose(request)
        self._unsent[call] = (now, reservation)
        return reservation.replica_id


def _info(replica: RunningReplica, since_s: float) -> ReplicaInfo:
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
        since_s=since_s,
        kv_events=feed is not None,
        kv_feed=feed,
        yielding_step_tokens=metadata.get("yielding_step_tokens", 0),
        attention_tokens=metadata.get("attention_tokens", USUAL_ATTENTION_TOKENS),
    )
