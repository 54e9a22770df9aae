"""What holds when a part of the platform is killed; who listens where; what is left afterwards.

A platform of its own, with one replica of the teacher, because the last test kills its supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import yaml
from redis.exceptions import RedisError

from load_tests.frontdoor.outage import Client, LongStream, measure
from load_tests.frontdoor.parts import CONTROLLER, GATEWAY, Parts
from weir.settings import load_settings

pytestmark = pytest.mark.e2e

_UP_TIMEOUT_S = 420
# Where minutes passed before; a machine busy with something else may take its time.
_GENEROUS_S = 20.0


@dataclass(frozen=True)
class Door:
    """One platform. ``temporary`` is its system's temporary folder, empty before the start."""

    client: Client
    parts: Parts
    home: Path
    temporary: Path
    redis_port: int

    def weir(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _weir(self.home, self.temporary, *arguments)


def _weir(home: Path, temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"WEIR_HOME": str(home), "TMPDIR": str(temporary)}
    env["PYTHONPATH"] = os.pathsep.join((str(root / "platform"), str(root)))
    return subprocess.run(
        [sys.executable, "-m", "weir.cli.main", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=_UP_TIMEOUT_S + 60,
        check=False,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("door-home")
    model = load_settings("laptop").models[0].model_dump(mode="json")
    ports = {"server": {"port": _free_port()}, "redis": {"port": _free_port()}}
    config = home / "door.yaml"
    config.write_text(
        yaml.safe_dump({**ports, "models": [{**model, "replicas": 1, "fallback": None}]})
    )
    # Short, because Unix sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="wd-", dir="/tmp") as folder:
        temporary = Path(folder)
        try:
            up = _weir(home, temporary, "up", "--config", str(config), "--json", "--timeout", "400")
            assert up.returncode == 0, up.stderr
            said = json.loads(up.stdout)
            client = Client(said["url"].removesuffix("/v1"), said["key"], said["models"][0])
            yield Door(client, Parts(home), home, temporary, ports["redis"]["port"])
        finally:
            _weir(home, temporary, "down", "--now")


def _post(door: Door, **headers: str | bytes) -> httpx.Response:
    body: dict[str, Any] = {
        "model": door.client.model,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 3,
    }
    named = {"authorization": f"Bearer {door.client.key}", **headers}
    raw = [(k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in named.items()]
    with httpx.Client(trust_env=False, timeout=60) as http:
        return http.post(f"{door.client.url}/v1/chat/completions", json=body, headers=raw)


def test_nothing_listens_beyond_loopback(door: Door) -> None:
    sockets = door.parts.listening()
    assert len(sockets) > 10  # HAProxy, Redis, the gateways, the replica, Ray
    beyond = [s for s in sockets if not s.ip.removeprefix("::ffff:").startswith("127.")]
    assert [s for s in beyond if s.ip != "::1"] == []


def test_every_socket_file_lies_in_the_run_folder(door: Door) -> None:
    sockets = door.parts.unix_sockets()
    assert len(sockets) >= 3  # Ray's two and HAProxy's
    own = (door.temporary, door.home / "run")
    assert [p for p in sockets if not any(p.is_relative_to(folder) for folder in own)] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": b"caf\xe9"},
        {"x-request-timeout-seconds": "0.001"},
        {"serve_multiplexed_model_id": b"\xff"},
        {"x-session-id": b"\xff"},
    ],
)
def test_headers_for_serve_change_nothing(door: Door, headers: dict[str, str | bytes]) -> None:
    answer = _post(door, **headers)
    assert answer.status_code == 200, answer.text


def test_a_gateway_obeys_no_such_header_past_haproxy_either(door: Door) -> None:
    gateway = door.parts.active_gateway()
    body = {"model": door.client.model, "prompt": "hello", "max_tokens": 3}
    key = ("authorization", f"Bearer {door.client.key}")
    for name, value in (
        ("x-request-id", b"caf\xe9"),
        ("x-request-timeout-seconds", b"0.001"),
        ("serve_multiplexed_model_id", b"\xff"),
    ):
        statuses = []
        for one in gateway.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr:
                url = f"http://127.0.0.1:{one.laddr.port}/v1/completions"
                headers = [(key[0].encode(), key[1].encode()), (name.encode(), value)]
                with contextlib.suppress(httpx.TransportError):
                    statuses.append(httpx.post(url, json=body, headers=headers).status_code)
        assert statuses == [200], name  # its other ports speak no HTTP


def test_what_is_not_for_strangers(door: Door) -> None:
    with httpx.Client(base_url=door.client.url, trust_env=False) as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/-/routes").status_code == 404
        assert http.get("/ready").json() == {"status": "ready"}
        key = {"authorization": f"Bearer {door.client.key}"}
        assert http.get("/ready", headers=key).json()["replicas"] == {door.client.model: 1}


def test_one_id_and_a_page_that_may_call(door: Door) -> None:
    with httpx.Client(base_url=door.client.url, trust_env=False) as http:
        asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
        assert http.options("/v1/chat/completions", headers=asked).status_code == 204
    answer = _post(door, origin="http://localhost:3000")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    named = answer.headers.get_list("x-request-id")
    assert [answer.json()["id"]] == [f"chatcmpl-{name}" for name in named]


def test_engines_get_as_much_of_the_cores_as_other_programs(door: Door) -> None:
    workers = door.parts.titled("ServeReplica")  # an engine core has its replica's title
    assert len(workers) >= 4
    assert {each.nice() for each in workers} == {door.parts.supervisor.nice()}


def test_haproxy_killed(door: Door) -> None:
    outage = measure(door.client, door.parts.named("HAProxy").kill)
    assert outage.seconds < _GENEROUS_S
    assert set(outage.statuses) <= {0, 503}


def test_the_active_gateway_killed(door: Door) -> None:
    outage = measure(door.client, lambda: door.parts.active_gateway().kill())
    assert outage.seconds < _GENEROUS_S
    assert outage.failed <= 3
    _wait_for(lambda: len(door.parts.titled(GATEWAY)) == 2, "Serve replaces the gateway")


def test_redis_killed_keeps_what_it_acknowledged(door: Door) -> None:
    with redis.Redis(port=door.redis_port) as client:
        for _ in range(200):
            written = client.incr("door-test")
    outage = measure(door.client, door.parts.named("Redis").kill)
    assert outage.failed == 0
    assert _redis_value(door) == written


def _redis_value(door: Door) -> int:
    deadline = time.monotonic() + _GENEROUS_S
    while True:
        try:
            with redis.Redis(port=door.redis_port) as client:
                return int(client.get("door-test"))  # type: ignore[arg-type]
        except RedisError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_controller_killed_streams_go_on(door: Door) -> None:
    with LongStream(door.client, 1500) as stream:
        outage = measure(door.client, door.parts.titled(CONTROLLER)[0].kill)
    assert stream.whole
    assert outage.failed == 0
    status = door.weir("status", "--json")
    assert (status.returncode, json.loads(status.stdout)["state"]) == (0, "running")


def test_supervisor_killed_streams_go_on_and_down_leaves_nothing(door: Door) -> None:
    """The last test of this file: there is no platform afterwards."""
    family = door.parts.family()
    assert len(family) > 10
    with LongStream(door.client, 1500) as stream:
        outage = measure(door.client, door.parts.supervisor.kill)
    assert stream.whole
    assert outage.failed == 0
    status = door.weir("status", "--json")
    held = json.loads(status.stdout)
    assert (status.returncode, held["state"]) == (5, "degraded")
    assert held["died"] == ["the supervisor"]
    down = door.weir("down")
    assert down.returncode == 0, down.stderr
    assert door.weir("status").returncode == 3
    _, alive = psutil.wait_procs(family, timeout=_GENEROUS_S)
    assert alive == []
    assert list(door.temporary.iterdir()) == []
    assert not (door.home / "run").exists()


def _wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
