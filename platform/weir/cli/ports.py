"""Whether the ports that the settings ask for are free, before anything starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import psutil

from weir.cli.exits import CommandError, ExitCode
from weir.settings import Settings

_IN_A_FILE = "choose another one in a settings file: weir up --config FILE"


def require_free_ports(settings: Settings) -> None:
    """Check the ports that settings name: the front door's, the metrics', the admin API's and, if
    it is embedded, Redis's. All others are found free when they are opened.

    Raises:
        CommandError: a port is taken or asked for twice, or the address is not this machine's.
    """
    taken: dict[int, str] = {}
    for host, port, setting, hint in _asked(settings):
        if port in taken:
            message = f"port {port} is asked for twice ({taken[port]}, {setting})"
            raise CommandError(message, ExitCode.CONFLICT, hint=hint)
        require_free(host, port, setting, hint)
        taken[port] = setting


def _asked(settings: Settings) -> Iterator[tuple[str, int, str, str]]:
    server, redis = settings.server, settings.redis
    yield server.host, server.port, "server.port", "choose another one: weir up --port N"
    if server.metrics.port is not None:
        yield server.metrics.host, server.metrics.port, "server.metrics.port", _IN_A_FILE
    if server.admin.port is not None:
        yield server.admin.host, server.admin.port, "server.admin.port", _IN_A_FILE
    if redis.mode == "embedded":
        hint = "choose another one: weir up --redis-port N"
        yield "127.0.0.1", redis.port, "redis.port", hint


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
