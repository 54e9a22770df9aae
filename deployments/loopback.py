"""Keeps a replica's calls between deployments on loopback.

Serve starts in each replica a gRPC server that unpickles what it is sent, and binds it to ``[::]``
without asking for an address, a setting or a token: whoever reaches the machine could run code in
a replica. There is no option, so the function that binds is replaced, in the replica's process.
"""

from __future__ import annotations

from typing import Any

_EVERYWHERE = "[::]:"
_LOOPBACK = "127.0.0.1:"


def on_loopback(replica: type) -> type:
    """``replica``, which binds to loopback what Serve binds to all interfaces. Constructors run
    before Serve binds."""

    class OnLoopback(replica):  # type: ignore[misc]
        async def __init__(  # type: ignore[misc]  # Serve awaits constructors
            self, *arguments: Any, **named: Any
        ) -> None:
            bind_to_loopback()
            started = super().__init__(*arguments, **named)
            if started is not None:
                await started

    OnLoopback.__name__ = OnLoopback.__qualname__ = replica.__name__
    return OnLoopback


def bind_to_loopback() -> None:
    """For the rest of this process's life."""
    from ray.serve._private import replica

    bind = replica.add_port_to_grpc_server
    if getattr(bind, "on_loopback", False):
        return

    def bind_on_loopback(server: Any, address: str) -> int:
        return int(bind(server, address.replace(_EVERYWHERE, _LOOPBACK, 1)))

    bind_on_loopback.on_loopback = True  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = bind_on_loopback
