"""Where an engine publishes its KV events.

vLLM's publisher *binds* only what has a wildcard in it or is no network address; anything else it
connects to, and then nobody ever hears an event. Events name the tokens of prompts, so what only
this machine may reach goes over sockets in a folder that only this user may open.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import tempfile
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EventFeed:
    """``bind``: vLLM's ``endpoint``. ``events``, ``replay``: where others connect. ``folder`` has
    the sockets that are no network addresses."""

    bind: str
    events: str
    replay: str
    folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def engine_argument(self) -> dict[str, object]:
        """vLLM's ``kv_events_config``."""
        return {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": self.bind,
            "replay_endpoint": self.replay,
            "topic": "kv",
        }

    def close(self) -> None:
        """Remove the sockets. The engine must have ended."""
        if self.folder is not None:
            self.folder.cleanup()


def open_feed(host: str) -> EventFeed:
    """Addresses that are free now, for an engine on the machine that ``host`` is an address of."""
    if ipaddress.ip_address(host).is_loopback:
        folder = tempfile.TemporaryDirectory(prefix="weir-kv-")
        events = f"ipc://{folder.name}/events"
        return EventFeed(events, events, f"ipc://{folder.name}/replay", folder)
    first, second = free_ports(host, 2)
    return EventFeed(f"tcp://*:{first}", f"tcp://{host}:{first}", f"tcp://{host}:{second}")


def free_ports(host: str, count: int) -> list[int]:
    """Ports of ``host`` that nobody listens on now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
