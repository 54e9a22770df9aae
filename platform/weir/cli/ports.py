"""Whether the ports that the settings ask for are free, before anything starts."""

from __future__ import annotations

import errno
import socket

import psutil

from weir.cli.exits import CommandError, ExitCode
from weir.settings import Settings


def require_free_ports(settings: Settings) -> None:
    """Check the front door's port and, if it is embedded, Redis's.

    Raises:
        CommandError: the port is taken, or the address is not this machine's.
    """
    require_free(
        settings.server.host,
        settings.server.port,
        "server.port",
        hint="choose another one: weir up --port N",
    )
    if settings.redis.mode == "embedded":
        hint = "choose another one in a settings file: weir up --config FILE"
        require_free("127.0.0.1", settings.redis.port, "redis.port", hint)


def require_free(host: str, port: int, setting: str, hint: str) -> None:
    """Bind and let go.

    Raises:
        CommandError: naming address, setting and, where it can be seen, who holds the port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is taken{_by_whom(port)} ({setting})"
            raise CommandError(message, ExitCode.CONFLICT, hint=hint) from None
        reason = error.strerror or str(error)
        raise CommandError(
            f"cannot listen on {host}:{port}: {reason} ({setting})", ExitCode.CONFLICT, hint=hint
        ) from None


def _by_whom(port: int) -> str:
    """`` by python (pid 12)``; empty where the system does not say."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and tuple(connection.laddr)[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
