"""How the gateway reaches replicas: protocols, so that the same gateway runs in simulated time.

:mod:`deployments.gateway.sockets` has the ones for real networks, ``weir.testing`` the ones in
memory.
"""

from __future__ import annotations

from typing import Protocol

from router.prefix_index import PrefixIndex
from router.types import ReplicaInfo


class ChannelClosedError(Exception):
    """The other side is gone; the message says why."""


class Channel(Protocol):
    """An open connection to one replica. Messages arrive whole, in order, and at most once."""

    async def send(self, data: bytes) -> None:
        """Hand a message over.

        Raises:
            ChannelClosedError: the connection is gone.
        """
        ...

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            ChannelClosedError: the connection is gone.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. Any number of calls."""
        ...


class ReplicaTransport(Protocol):
    """Opens connections."""

    async def connect(self, replica_id: str, address: str) -> Channel:
        """Connect; the caller bounds how long it takes.

        Raises:
            ChannelClosedError: nobody answers there.
        """
        ...


class CacheFeed(Protocol):
    """Tells what a replica's KV cache holds."""

    async def follow(self, index: PrefixIndex, info: ReplicaInfo) -> None:
        """Keep ``index`` in step with the replica, until cancelled."""
        ...
