"""Whether the ports that the settings ask for are free, before anything starts."""

from __future__ import annotations

import errno
import socket

import psutil

from weir.cli.exits import CommandError, ExitCode
from weir.settings import Settings

_REDIS_HINT = "choose another one: weir up --redis-port N"


def require_free_ports(settings: Settings) -> None:
    """Check the front door's port and, if it is embedded, Redis's. All others are found free when
    they are opened.

    Raises:
        CommandError: the port is taken, the address is not this machine's, or both are to have
            the same port.
    """
    server, redis = settings.server, settings.redis
    embedded = redis.mode == "embedded"
    if embedded and server.port == redis.port:
        raise CommandError(
            f"port {redis.port} is asked for twice (server.port, redis.port)",
            ExitCode.CONFLICT,
            hint=_REDIS_HINT,
        )
    hint = "choose another one: weir up --port N"
    require_free(server.host, server.port, "server.port", hint)
    if embedded:
        require_free("127.0.0.1", redis.port, "redis.port", _REDIS_HINT)


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
