"""One model's replicas as the gateway reaches them: membership, connections, caches.

Ray Serve pushes the replica set into the router; the fleet listens there. It opens a connection to
each member when it joins and again when it breaks, in the background. Requests never queue behind a
connect: while a replica cannot be reached, the router is told to avoid it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

from deployments import wire
from deployments.gateway.connection import ReplicaConnection, ReplicaLostError
from deployments.gateway.transport import CacheFeed, ChannelClosedError, ReplicaTransport
from router.router import Router
from router.subscription import Follower, Subscription
from router.types import ReplicaInfo, ReplicaLoad, ReplicaStats, Role

_LOG = logging.getLogger("weir.gateway")
CONNECT_TIMEOUT_S = 2.0
_FIRST_RETRY_S = 0.25
_LAST_RETRY_S = 5.0
_SUBSCRIBE_PERIOD_S = 5.0
_SUBSCRIBE_TIMEOUT_S = 1.0


class ReplicaChooser(Protocol):
    """The part of a Serve deployment handle that the gateway uses."""

    def choose_replica(self, *args: Any, **kwargs: Any) -> Any:
        """An async context manager around Serve's replica choice."""
        ...


class Fleet:
    """``wake`` is called whenever replicas may have got room."""

    def __init__(
        self, router: Router, transport: ReplicaTransport, feed: CacheFeed, wake: Callable[[], None]
    ) -> None:
        self.router = router
        self._transport = transport
        self._feed = feed
        self._wake = wake
        self._clock = asyncio.get_running_loop().time
        self._connections: dict[str, ReplicaConnection] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._feeds: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closed = False
        #: What each replica last said of itself.
        self.loads: dict[str, wire.Load] = {}
        #: Called with what another gateway has not booked.
        self.take_over: Callable[[ReplicaConnection, wire.Owed], None] | None = None
        #: How often a replica that ran was heard to have another role, by the new one.
        self.role_changes: Counter[Role] = Counter()
        router.listeners.append(self._members_changed)
        self._members_changed((), router.members)

    async def connection(self, replica_id: str) -> ReplicaConnection:
        """The connection to a replica. Waits, for a bounded time, for one being opened.

        Raises:
            ReplicaLostError: it cannot be reached now, or has left.
        """
        connection = self._connections.get(replica_id)
        if connection is not None and not connection.broken:
            return connection
        opening = self._connecting.get(replica_id)
        if opening is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._until_connected(replica_id)
            connection = self._connections.get(replica_id)
            if connection is not None and not connection.broken:
                return connection
        raise ReplicaLostError(f"Replica {replica_id} cannot be reached.")

    @property
    def changed(self) -> asyncio.Event:
        """Set as soon as a replica joins, leaves, or is connected; then there is another one."""
        return self._changed

    @property
    def connected(self) -> set[str]:
        """Replicas with an open connection, those among them that have left and end their
        streams."""
        return set(self._connections)

    def unreachable(self) -> set[str]:
        """Members that nothing can be sent to now."""
        return {
            info.replica_id
            for info in self.router.members
            if (open_ := self._connections.get(info.replica_id)) is None
            or open_.broken
            or open_.draining
        }

    def others(self, replica_id: str) -> bool:
        """Whether there is another replica that something can be sent to."""
        members = {info.replica_id for info in self.router.members}
        return bool(members - self.unreachable() - {replica_id})

    def answerers(self, but: Collection[str]) -> bool:
        """Whether there is a replica that answers requests and that something can be sent to, apart
        from these."""
        members = {i.replica_id for i in self.router.members if i.role != "prefill"}
        return bool(members - self.unreachable() - set(but))

    async def follow(self, handle: ReplicaChooser, pool: str = "") -> None:
        """Stay subscribed to Serve's replica set, of a pool where the model has some, until
        cancelled. Again and again, because Serve makes a new request router when its settings
        change."""
        follower = _PoolMembers(self.router, pool)
        while True:
            subscribed = await _subscribe(handle, follower)
            await asyncio.sleep(_SUBSCRIBE_PERIOD_S if subscribed else _FIRST_RETRY_S)

    async def close(self) -> None:
        """Let go of all replicas."""
        self._closed = True
        self.router.listeners.remove(self._members_changed)
        self._members_changed(self.router.members, ())
        tasks = list(self._background)
        await asyncio.gather(*tasks, return_exceptions=True)

    # What a connection tells (:class:`deployments.gateway.connection.Listener`).

    def heard_load(self, replica_id: str, load: wire.Load) -> None:
        """A replica said how busy it is, and what it is for now."""
        self._hear_role(replica_id, load.role or None)
        self.loads[replica_id] = load
        elsewhere = ReplicaLoad(
            load.elsewhere_requests,
            load.elsewhere_prefill_tokens,
            load.elsewhere_decode_tokens,
            load.elsewhere_context_tokens,
        )
        stats = ReplicaStats(
            load.running,
            load.waiting,
            load.kv_blocks_used,
            self._clock(),
            elsewhere,
            load.mfu,
            load.mbu,
            load.tiers,
            load.role_until,
        )
        self.router.update_stats(replica_id, stats)
        self._wake()

    def _hear_role(self, replica_id: str, role: Role | None) -> None:
        if self.router.change_role(replica_id, role):
            now = next(info.role for info in self.router.members if info.replica_id == replica_id)
            self.role_changes[now] += 1
            _LOG.info("a replica has another role", extra={"replica": replica_id, "role": now})

    def heard_adapters(self, replica_id: str, adapters: wire.Adapters) -> None:
        """A replica said which LoRA adapters it has."""
        told = (adapters.loaded, adapters.busy, adapters.slots, adapters.load_s, adapters.loads)
        self.router.adapters.told(replica_id, *told)

    def heard_owed(self, connection: ReplicaConnection, owed: wire.Owed) -> None:
        """A replica said what its engine has counted for a gateway that is gone."""
        if self.take_over is not None:
            self.take_over(connection, owed)

    def stepped(self, replica_id: str) -> None:
        """A replica's engine has ended a step."""
        self.router.stepped(replica_id)

    def leaving(self, replica_id: str) -> None:
        """A replica drains: nothing more goes there."""
        self.router.avoid(replica_id, float("inf"))

    def doubted(self, replica_id: str, for_s: float) -> None:
        """A replica is silent: nothing new goes there, where another can take it, until it is known
        whether it is lost."""
        self.router.avoid(replica_id, self._clock() + for_s)

    def lost(self, connection: ReplicaConnection) -> None:
        """A connection broke: the replica is avoided until there is another."""
        replica_id = connection.replica_id
        if self._connections.get(replica_id) is not connection:
            return
        del self._connections[replica_id]
        self.loads.pop(replica_id, None)
        self._spawn(connection.close())
        if not self._closed and any(m.replica_id == replica_id for m in self.router.members):
            self.router.avoid(replica_id, float("inf"))
            if replica_id not in self._connecting:
                self._connect(replica_id)

    # Membership.

    def _members_changed(self, old: Iterable[ReplicaInfo], new: Iterable[ReplicaInfo]) -> None:
        members = {info.replica_id: info for info in new}
        for gone in [rid for rid in self._connecting if rid not in members]:
            self._connecting.pop(gone).cancel()
        for gone in [rid for rid in self._feeds if rid not in members]:
            self._feeds.pop(gone).cancel()
        for gone in [rid for rid in self._connections if rid not in members]:
            self._let_go(gone)
        for replica_id, info in members.items():
            if replica_id not in self._connections and replica_id not in self._connecting:
                self._connect(replica_id)
            if info.kv_feed is not None and replica_id not in self._feeds:
                self._feeds[replica_id] = self._spawn(self._feed.follow(self.router.index, info))
        self._notify()

    def _let_go(self, replica_id: str) -> None:
        """A replica left the set. Serve takes it out before it drains it, so what it still
        generates is read to its end; new streams do not go there."""
        connection = self._connections[replica_id]
        if not connection.open_streams or self._closed:
            del self._connections[replica_id]
            self.loads.pop(replica_id, None)
            self._spawn(connection.close())

    def _connect(self, replica_id: str) -> None:
        self._connecting[replica_id] = self._spawn(self._keep_connecting(replica_id))

    async def _keep_connecting(self, replica_id: str) -> None:
        wait_s = _FIRST_RETRY_S
        try:
            while (address := self._address(replica_id)) is not None:
                if await self._open(replica_id, address):
                    return
                self.router.avoid(replica_id, float("inf"))
                await asyncio.sleep(wait_s)
                wait_s = min(2.0 * wait_s, _LAST_RETRY_S)
        finally:
            if self._connecting.get(replica_id) is asyncio.current_task():
                del self._connecting[replica_id]

    async def _open(self, replica_id: str, address: str) -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                channel = await self._transport.connect(replica_id, address)
        except (ChannelClosedError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _LOG.info("replica not reachable", extra={"replica": replica_id, "reason": reason})
            return False
        self._connections[replica_id] = ReplicaConnection(replica_id, channel, self)
        self.router.avoid(replica_id, float("-inf"))
        self._notify()
        return True

    async def _until_connected(self, replica_id: str) -> None:
        while replica_id in self._connecting and replica_id not in self._connections:
            await self._changed.wait()

    def _address(self, replica_id: str) -> str | None:
        members = self.router.members
        return next((m.address for m in members if m.replica_id == replica_id), None)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._wake()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


class _PoolMembers:
    """One deployment's replicas among all that a router has; the others stay as they are."""

    def __init__(self, router: Router, pool: str) -> None:
        self._router = router
        self._pool = pool

    def set_replicas(self, replicas: Iterable[ReplicaInfo]) -> None:
        """Replace the members of this pool."""
        own = [replace(info, pool=self._pool) for info in replicas]
        members = self._router.members
        if own != [info for info in members if info.pool == self._pool]:
            others = [info for info in members if info.pool != self._pool]
            self._router.set_replicas([*others, *own])


async def _subscribe(handle: ReplicaChooser, follower: Follower) -> bool:
    try:
        async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
            # Serve starts a replica for whoever waits for one, whatever the autoscaler has decided;
            # who reserves nothing is not counted (docs/adr/0038-autoscaling-policies.md).
            async with handle.choose_replica(Subscription(follower), _reserve=False):
                return True
    except TimeoutError:  # no replica is up
        return False
    except Exception as error:  # noqa: BLE001 - Serve replaces what failed; asked again soon
        _LOG.info("Serve could not be asked for replicas", extra={"reason": str(error)})
        return False
