"""The front door on its own: who the gateways are, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from deployments.front_door import GATEWAY_ENVIRONMENT, GATEWAY_PORTS, GatewaysByName, accepts
from deployments.haproxy_config import Target


class Network:
    """Addresses of a name, and what listens there; a busy place does not answer in time."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.listening: set[tuple[str, int]] = set()
        self.busy: set[tuple[str, int]] = set()

    def look_up(self, name: str) -> list[str]:
        assert name == "gateways"
        return self.addresses

    def accepting(self, host: str, port: int) -> bool:
        if (host, port) in self.busy:
            raise TimeoutError
        return (host, port) in self.listening

    def finder(self) -> GatewaysByName:
        return GatewaysByName("gateways", (1, 2), self.look_up, self.accepting)


def test_gateways_are_who_listens_at_the_names_addresses() -> None:
    network = Network()
    network.addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    network.listening = {("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.9", 1)}
    assert network.finder()() == [
        Target("10.0.0.1:1", "10.0.0.1", 1),
        Target("10.0.0.2:2", "10.0.0.2", 2),
    ]


def test_one_that_is_too_busy_to_accept_stays_while_it_has_its_address() -> None:
    network, place = Network(), ("10.0.0.1", 1)
    network.addresses, network.listening, network.busy = ["10.0.0.1"], {place}, {place}
    finder = network.finder()
    assert finder() == [], "nobody has seen it yet"
    network.busy = set()
    assert len(finder()) == 1
    network.busy = {place}
    assert len(finder()) == 1
    network.addresses = []
    assert finder() == []


def test_one_that_is_gone_goes_at_once() -> None:
    network, place = Network(), ("10.0.0.1", 1)
    network.addresses, network.listening = ["10.0.0.1"], {place}
    finder = network.finder()
    assert len(finder()) == 1
    network.listening = set()
    assert finder() == []


def test_accepting_is_asked_of_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert accepts("127.0.0.1", port)
    assert not accepts("127.0.0.1", port)


def test_serve_is_told_the_ports_that_are_looked_at() -> None:
    first = int(GATEWAY_ENVIRONMENT["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
    last = int(GATEWAY_ENVIRONMENT["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"])
    assert range(first, last + 1) == GATEWAY_PORTS


class _Gateway(BaseHTTPRequestHandler):
    """Healthy; its answers take as long as the path says, in ms."""

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            time.sleep(1.0)
        body = b"success" if self.path == "/-/healthz" else b"answer"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def gateway() -> Iterator[None]:
    """Somebody who listens at one of the gateways' ports of an address of this test's own."""
    server = ThreadingHTTPServer((_ADDRESS, GATEWAY_PORTS[1]), _Gateway)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


#: All of 127/8 is this machine's. A process has a place of its own.
_ADDRESS = f"127.77.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"


@pytest.mark.engine
def test_requests_under_way_end_and_new_ones_are_not_taken(
    tmp_path: Path, package_env: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = tmp_path / "settings.yaml"
    model = {"name": "m", "source": "builtin:teacher"}
    server = {"port": port, "drain_timeout_s": 20}
    settings.write_text(yaml.safe_dump({"server": server, "models": [model]}))
    command = [sys.executable, "-m", "deployments.front_door", "--settings", str(settings)]
    command += ["--gateways", _ADDRESS, "--folder", str(tmp_path / "haproxy")]
    with gateway():
        front = subprocess.Popen(command, env=package_env, cwd=tmp_path)
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url, front)
            answers: list[int] = []
            asked = threading.Thread(
                target=lambda: answers.append(httpx.get(f"{url}/slow", timeout=20).status_code)
            )
            asked.start()
            time.sleep(0.4)
            front.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url, timeout=5)
            asked.join(20)
            assert answers == [200]
            assert front.wait(20) == 0
        finally:
            front.kill()
            front.wait()


def _await(url: str, front: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert front.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("no gateway was found")
