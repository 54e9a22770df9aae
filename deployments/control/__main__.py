"""``python -m deployments.control --settings FILE --state DIR --listen WHERE``.

``WHERE`` is ``unix:PATH`` or ``HOST:PORT``. Runs until SIGTERM, and lets requests in flight end.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
from pathlib import Path

import uvicorn

from deployments.control.building import build_control
from deployments.quiet_server import QuietServer
from weir.logs import configure_logging
from weir.settings import parse_settings, read_tree

_GRACE_S = 5
_BACKLOG = 256
# Where there is little CPU, requests of models come first.
_NICE = 5


def main(argv: list[str] | None = None) -> int:
    """Serve; the exit code is 0 after a clean stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    arguments = parser.parse_args(argv)
    os.nice(_NICE)
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    configure_logging(settings.log)
    app = build_control(settings, os.environ, arguments.state)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=75,
    )
    with listening_socket(arguments.listen) as listener:
        gc.collect()
        gc.freeze()  # what was imported stays
        QuietServer(config).run([listener])
    return 0


def listening_socket(where: str) -> socket.socket:
    """Listens at ``unix:PATH``, in place of whoever did before, or at ``HOST:PORT``.

    Raises:
        OSError: it cannot.
    """
    if where.startswith("unix:"):
        path = Path(where.removeprefix("unix:"))
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(str(fresh))
        fresh.chmod(0o600)
        made.listen(_BACKLOG)
        fresh.replace(path)
        return made
    host, _, port = where.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host.strip("[]"), int(port)))
    made.listen(_BACKLOG)
    return made


if __name__ == "__main__":
    sys.exit(main())
