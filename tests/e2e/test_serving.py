"""The chart's application on a real Ray cluster, deployed as KubeRay does it: by Serve's REST API.

Three nodes of Ray's on this machine stand for pods: a head, one for gateways, one for each model;
they carry the labels that the chart gives them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.cluster import ENVIRONMENT
from deployments.front_door import GATEWAY_ENVIRONMENT
from deployments.redis_server import RedisServer
from k8s.rendering import helm_binary, objects, template
from weir.tenancy import hash_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]

_UP_S = 240
_HOST = "127.0.0.1"
_KEY = "weir_of-the-test"


def _free_ports(count: int) -> list[int]:
    """Ports in a row, free now."""
    while True:
        with contextlib.ExitStack() as held:
            probe = held.enter_context(socket.create_server((_HOST, 0)))
            first = probe.getsockname()[1]
            with contextlib.suppress(OSError):
                for port in range(first + 1, first + count):
                    held.enter_context(socket.create_server((_HOST, port)))
                return list(range(first, first + count))


def _model(name: str, interval_ms: float) -> dict[str, Any]:
    engine = {"mode": "stub", "args": {"interval_ms": interval_ms}}
    return {"name": name, "source": "builtin:teacher", "num_cpus": 0, "engine": engine}


@dataclass
class Nodes:
    """Ray's processes, by the label of their node."""

    folder: Path
    ports: list[int]
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Ray's dashboard, to which the operator talks."""
        return f"http://{_HOST}:{self.ports[1]}"

    def start(self, label: str) -> None:
        gcs, dashboard = self.ports[:2]
        where = ["--node-ip-address", _HOST, "--labels", f"weir/pool={label}", "--block"]
        where += ["--object-store-memory", "80000000", "--disable-usage-stats"]
        # Several nodes on one machine: nobody has a port of its own by default.
        where += ["--min-worker-port", "0", "--max-worker-port", "0"]
        where += ["--dashboard-agent-listen-port", str(_free_ports(1)[0])]
        if label == "head":
            where += ["--head", "--port", str(gcs), "--dashboard-port", str(dashboard)]
            where += ["--dashboard-host", _HOST, "--num-cpus", "0"]
            where += ["--temp-dir", str(self.folder / "ray")]
            where += ["--ray-client-server-port", str(_free_ports(1)[0])]
        else:
            where += ["--address", f"{_HOST}:{gcs}", "--num-cpus", "1"]
        log = (self.folder / f"{label}.log").open("wb")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where]
        self.running[label] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, cwd=self.folder
        )
        log.close()

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()

    def ask(self, verb: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        address = f"{self.url}/api/serve/applications/"
        answer = httpx.request(verb, address, json=config, headers=headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    def application(self) -> dict[str, Any]:
        return dict(self.ask("GET")["applications"].get("weir", {}))

    def replicas(self, deployment: str) -> list[str]:
        deployments = self.application()["deployments"]
        return [each["replica_id"] for each in deployments[deployment]["replicas"]]

    def await_running(self) -> None:
        end, said = time.monotonic() + _UP_S, ""
        while time.monotonic() < end:
            assert all(each.poll() is None for each in self.running.values()), self.logs()
            with contextlib.suppress(httpx.HTTPError):
                app = self.application()
                said = f"{app.get('status')}: {app.get('message')}"
                assert app.get("status") not in ("DEPLOY_FAILED", "UNHEALTHY"), said
                if app.get("status") == "RUNNING":
                    return
            time.sleep(0.5)
        raise AssertionError(f"{said}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(file.read_text()[-1500:] for file in self.folder.glob("*.log"))


def _config(helm: Path, folder: Path, redis: RedisServer, second_ms: float) -> dict[str, Any]:
    """``serveConfigV2`` of two models, as the chart renders it, on this machine's addresses."""
    values = folder / "values.yaml"
    models = [_model("first", 5), _model("second", second_ms)]
    groups = [{"name": "main", "replicas": 1}]
    values.write_text(
        yaml.safe_dump({"settings": {"models": models}, "gateways": {"groups": groups}})
    )
    done = template(helm, "--values", str(values))
    assert done.returncode == 0, done.stderr
    (service,) = [each for each in objects(done.stdout) if each["kind"] == "RayService"]
    config = dict(yaml.safe_load(service["spec"]["serveConfigV2"]))
    config["http_options"]["host"] = _HOST
    config["http_options"]["port"] = _free_ports(1)[0]
    settings = config["applications"][0]["args"]["settings"]
    settings["redis"]["url"] = redis.url
    settings["gateway"]["metrics_port"] = _free_ports(1)[0]
    return config


@pytest.fixture
def helm() -> Path:
    binary = helm_binary()
    if binary is None:
        pytest.skip("helm is not here: make helm")
    return binary


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", _free_ports(1)[0], tmp_path / "redis.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def nodes(package_env: dict[str, str]) -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="weir-"))  # the paths of Ray's sockets must be short
    ports = _free_ports(6)
    environment = {
        **{k: v for k, v in package_env.items() if k != "PYTHONDONTWRITEBYTECODE"},
        **ENVIRONMENT,
        **GATEWAY_ENVIRONMENT,
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports[2]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports[5]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "WEIR_INTERNAL_TOKEN": "internal",
        "WEIR_DATABASE_URL": f"sqlite:///{folder / 'weir.db'}",
        "WEIR_LEDGER_FOLDER": str(folder / "ledger"),
        "WEIR_HOME": str(folder / "home"),
    }
    made = Nodes(folder, ports, environment)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(nodes: Nodes, settings: dict[str, Any]) -> None:
    """What the chart's Job does: the schema, and the tenants, which Serve is not told."""
    tenant = {"id": "shop", "key_sha256": [hash_key(_KEY)]}
    file = nodes.folder / "settings.yaml"
    file.write_text(yaml.safe_dump({**settings, "tenants": [tenant]}))
    command = [sys.executable, "-m", "deployments.preparing", "--settings", str(file)]
    subprocess.run(command, env=nodes.environment, check=True, timeout=120)


def _complete(nodes: Nodes, model: str) -> dict[str, Any]:
    """One answer, from whichever port the gateway has; tried until the gateway knows the model."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    said = ""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for port in nodes.ports[2:]:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.post(
                    f"http://{_HOST}:{port}/v1/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {_KEY}"},
                    timeout=30,
                )
                if answer.status_code == 200:
                    return dict(answer.json())
                said = answer.text
        time.sleep(0.3)
    raise AssertionError(said or "no gateway answers")


def test_serves_rest_api_deploys_it_and_restarts_only_what_changed(
    nodes: Nodes, helm: Path, redis: RedisServer
) -> None:
    config = _config(helm, nodes.folder, redis, 5)
    settings = config["applications"][0]["args"]["settings"]
    _prepare(nodes, settings)
    nodes.start("head")
    _await_dashboard(nodes)
    nodes.ask("PUT", config)
    for label in ("gateway", "first", "second"):
        nodes.start(label)
    nodes.await_running()
    answer = _complete(nodes, "first")
    assert answer["usage"]["completion_tokens"] == 4
    health = f"http://{_HOST}:{settings['gateway']['metrics_port']}"
    assert httpx.get(f"{health}/ready", timeout=10).status_code == 200
    assert httpx.get(f"{health}/metrics", timeout=10).status_code == 401
    watcher = {"authorization": "Bearer internal"}
    figures = httpx.get(f"{health}/metrics", headers=watcher, timeout=10).text
    assert "weir_requests_total" in figures
    assert httpx.get(f"{health}/v1/models", headers=watcher, timeout=10).status_code == 404
    before = {name: nodes.replicas(name) for name in ("gateway", "model-first", "model-second")}

    settings["models"][1]["engine"]["args"]["interval_ms"] = 6
    nodes.ask("PUT", config)
    _await_other(nodes, "model-second", before["model-second"])
    nodes.await_running()
    after = {name: nodes.replicas(name) for name in before}
    assert after["model-first"] == before["model-first"]
    assert after["gateway"] == before["gateway"]
    assert after["model-second"] != before["model-second"]
    assert _complete(nodes, "second")["usage"]["completion_tokens"] == 4


def _await_dashboard(nodes: Nodes) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert nodes.running["head"].poll() is None, nodes.logs()
        with contextlib.suppress(httpx.HTTPError):
            nodes.ask("GET")
            return
        time.sleep(0.5)
    raise AssertionError(nodes.logs())


def _await_other(nodes: Nodes, deployment: str, before: list[str]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        now = nodes.replicas(deployment)
        if now and not set(now) & set(before):
            return
        time.sleep(0.5)
    raise AssertionError(f"{deployment} still has {before}")


def test_the_environment_has_what_the_chart_gives() -> None:
    from k8s.generate import environment

    assert yaml.safe_load(environment()) == ENVIRONMENT | GATEWAY_ENVIRONMENT
    assert not ENVIRONMENT.keys() & os.environ.keys()
