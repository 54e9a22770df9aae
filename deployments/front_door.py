"""The front door as a process of its own, for gateways on other machines.

``python -m deployments.front_door --settings FILE --gateways NAME --folder DIR`` runs the HAProxy
that ``weir up`` runs, and sends requests to the gateways at the addresses that ``NAME`` has in the
DNS (on Kubernetes: a Service without an address of its own). On SIGTERM it accepts nothing any more
and ends when the answers under way have.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from deployments.guard import Guard
from deployments.haproxy import FrontDoor
from deployments.haproxy_config import Target
from weir.logs import configure_logging
from weir.settings import parse_settings, read_tree

_LOG = logging.getLogger("weir.front_door")
#: Where Serve lets a gateway listen: the first of these ports that is free on its machine. A new
#: gateway begins while the one before it on the same machine ends.
GATEWAY_PORTS: Final = range(30000, 30004)
#: Beside :data:`deployments.cluster.ENVIRONMENT`, of machines with one gateway each. A port that a
#: gateway leaves is the next one's at once: HAProxy asks who is there.
GATEWAY_ENVIRONMENT: Final = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(GATEWAY_PORTS[0]),
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(GATEWAY_PORTS[-1]),
    "RAY_SERVE_PORT_QUARANTINE_S": "0",
}
_CONNECT_TIMEOUT_S = 0.5


def addresses_of(name: str) -> list[str]:
    """The IPv4 addresses of a name, sorted.

    Raises:
        OSError: it has none now, or nobody answers.
    """
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def accepts(host: str, port: int) -> bool:
    """Whether somebody listens there.

    Raises:
        TimeoutError: it cannot be told in time.
    """
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


class GatewaysByName:
    """Looks up who the gateways are, each time that it is called. One that is too busy to accept a
    connection stays as long as it has its address."""

    def __init__(
        self,
        name: str,
        ports: Iterable[int] = GATEWAY_PORTS,
        addresses: Callable[[str], list[str]] = addresses_of,
        accepting: Callable[[str, int], bool] = accepts,
    ) -> None:
        self._name = name
        self._ports = tuple(ports)
        self._addresses = addresses
        self._accepting = accepting
        self._known: set[tuple[str, int]] = set()

    def __call__(self) -> list[Target]:
        """Raises:
        OSError: the name cannot be looked up.
        """
        places = [
            (address, port) for address in self._addresses(self._name) for port in self._ports
        ]
        self._known = {place for place in places if self._is_there(*place)}
        return [Target(f"{host}:{port}", host, port) for host, port in sorted(self._known)]

    def _is_there(self, host: str, port: int) -> bool:
        try:
            return self._accepting(host, port)
        except TimeoutError:
            return (host, port) in self._known


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; the exit code is 0 after a clean stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--gateways", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args(argv)
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    configure_logging(settings.log)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    front = FrontDoor(settings.server, arguments.folder, settings.gateway.replicas == 1)
    guard = Guard(
        GatewaysByName(arguments.gateways),
        front,
        lambda part: _LOG.warning("%s had ended and was started again", part),
    )
    front.start()
    guard.start()
    _LOG.info("front door open", extra={"address": f"{settings.server.host}:{front.port}"})
    stop.wait()
    guard.stop()
    front.finish(settings.server.drain_timeout_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
