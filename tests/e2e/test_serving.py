"""The chart's platform from the rendered manifests to a first answer, without Kubernetes.

Each pod is processes on this machine at a loopback address of its own: the commands, environments,
labels and settings are those of the rendered manifests, in which only names (of the DNS), folders
and ``0.0.0.0`` are replaced. What the operator does is done as it does it: ``ray start`` in each
pod, and ``serveConfigV2`` by Serve's REST API. Engines are stubs.
"""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from redis import Redis

from deployments.redis_server import RedisServer
from k8s.rendering import helm_binary, objects, template, values_file
from weir.tenancy import hash_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]

_UP_S = 240.0
_PODS = ("head", "gateway-main", "front", "control", "weir-teacher", "weir-student", "job", "test")
_KEY = "weir_of-the-test"
_SECRET = {
    "internal-token": "internal-of-the-test",
    "redis-password": "redis-of-the-test",
    "test-api-key": _KEY,
}
_RAY_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ray-of-the-test" * 3}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _await(what: str, done: Callable[[], bool], seconds: float = _UP_S) -> None:
    """Until it is so. What cannot be asked yet is asked again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if done():
                return
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass
class Pods:
    """The processes of all pods. ``made``: the rendered objects, on this machine's addresses."""

    folder: Path
    network: str
    redis: RedisServer
    environment: dict[str, str]
    made: list[dict[str, Any]] = field(default_factory=list)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    gcs_port: int = field(default_factory=_free_port)
    dashboard_port: int = field(default_factory=_free_port)

    def address(self, pod: str) -> str:
        """Each pod has one of its own; so no port of the chart's is taken."""
        return f"{self.network}.{2 + _PODS.index(pod)}"

    def render(self, helm: Path, values: dict[str, Any]) -> None:
        """The laptop's values, with others above them."""
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        done = template(helm, "--values", str(values_file("laptop")), "--values", str(file))
        assert done.returncode == 0, done.stderr
        names = {
            "weir-redis:6379": f"127.0.0.1:{self.redis.port}",
            "weir-front-gateways": self.address("gateway-main"),
            "weir-front:80": f"{self.address('front')}:8000",
            "weir-control:8080": f"{self.address('control')}:8080",
        }
        text = done.stdout
        for name, address in names.items():
            assert name in text
            text = text.replace(name, address)
        self.made = objects(text)

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """The object of a kind whose name begins so."""
        (found,) = (
            each
            for each in self.made
            if each["kind"] == kind and each["metadata"]["name"].startswith(name)
        )
        return found

    def serve_config(self) -> dict[str, Any]:
        """``serveConfigV2``. Serve tells all gateways one address on which to listen."""
        config = dict(yaml.safe_load(self.one("RayService", "weir")["spec"]["serveConfigV2"]))
        config["http_options"]["host"] = self.address("gateway-main")
        return config

    def run(self, name: str, container: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """A container that ends by itself."""
        command, environment = self._prepared(name, container)
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.folder,
        )

    def start(self, name: str, container: dict[str, Any]) -> None:
        """A container that goes on."""
        command, environment = self._prepared(name, container)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder
            )

    def start_ray(self, name: str, group: dict[str, Any]) -> None:
        """As the operator does it."""
        (container,) = group["template"]["spec"]["containers"]
        cpus = group["rayStartParams"].get("num-cpus")
        cpus = cpus or str(math.ceil(float(container["resources"]["limits"]["cpu"])))
        labels = ",".join(f"{label}={value}" for label, value in group["labels"].items())
        options = ["--block", "--disable-usage-stats", "--num-cpus", cpus, "--labels", labels]
        options += ["--node-ip-address", self.address(name), "--object-store-memory", "80000000"]
        # Ray listens on all interfaces with these; the nodes of one machine cannot share them.
        options += ["--min-worker-port", "0", "--max-worker-port", "0"]
        options += ["--dashboard-agent-listen-port", str(_free_port())]
        options += ["--temp-dir", str(self.folder / name / "ray")]
        head = self.address("head")
        if name == "head":
            options += ["--head", "--port", str(self.gcs_port), "--dashboard-host", head]
            options += ["--dashboard-port", str(self.dashboard_port)]
            options += ["--ray-client-server-port", str(_free_port())]
        else:
            options += ["--address", f"{head}:{self.gcs_port}"]
        command = ["python", "-m", "ray.scripts.scripts", "start", *options]
        self.start(name, {**container, "command": command})

    def stop(self) -> None:
        """All of them. Ray would take half a minute to end in order."""
        own = [psutil.Process(each.pid) for each in self.running.values() if each.poll() is None]
        processes = {below for each in own for below in each.children(recursive=True)}
        for process in [*own, *processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for started in self.running.values():
            started.wait(30)
        psutil.wait_procs(processes, timeout=30)

    def ask(self, verb: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """Serve's REST API."""
        assert all(each.poll() is None for each in self.running.values()), self.logs()
        headers = {"authorization": f"Bearer {_RAY_TOKEN['RAY_AUTH_TOKEN']}"}
        url = f"http://{self.address('head')}:{self.dashboard_port}/api/serve/applications/"
        answer = httpx.request(verb, url, json=config, headers=headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    def runs(self) -> bool:
        """Whether the application does; fails where it never will."""
        application = self.ask("GET")["applications"].get("weir", {})
        said = f"{application.get('status')}: {application.get('message')}"
        assert application.get("status") not in ("DEPLOY_FAILED", "UNHEALTHY"), said
        return application.get("status") == "RUNNING"

    def replicas(self) -> dict[str, set[str]]:
        """By deployment; none while the application is built."""
        deployments = self.ask("GET")["applications"]["weir"]["deployments"]
        return {
            name: {replica["replica_id"] for replica in each["replicas"]}
            for name, each in deployments.items()
        }

    def logs(self) -> str:
        """What the processes said last."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-1500:]}" for file in files)

    def _prepared(self, name: str, container: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        address = self.address(name)
        state = self.folder / name
        settings = state / "settings"
        settings.mkdir(parents=True, exist_ok=True)
        told = self.one("ConfigMap", "weir-settings")["data"]["settings.yaml"]
        (settings / "settings.yaml").write_text(told.replace("0.0.0.0", address))

        def here(text: str) -> str:
            text = text.replace("/etc/weir/settings", str(settings)).replace("0.0.0.0", address)
            text = text.replace("/var/lib/weir", str(state))
            return str(self.folder / "cache") if text.startswith("/cache") else text

        environment = {**self.environment, **_RAY_TOKEN}
        for variable in container["env"]:
            environment[variable["name"]] = here(self._value(variable, environment, address))
        programs = {"python": [sys.executable], "weir": [sys.executable, "-m", "weir.cli.main"]}
        first, *rest = container["command"]
        return [*programs[first], *map(here, rest)], environment

    def _value(self, variable: dict[str, Any], known: dict[str, str], address: str) -> str:
        if (source := variable.get("valueFrom")) is None:
            value = str(variable["value"])
            for name, each in known.items():
                value = value.replace(f"$({name})", each)
            return value
        if "fieldRef" in source:
            return address
        key = source["secretKeyRef"]["key"]
        return _SECRET.get(key) or {"database-url": f"sqlite:///{self.folder / 'weir.db'}"}[key]


@pytest.fixture
def pods(package_env: dict[str, str]) -> Iterator[Pods]:
    folder = Path(tempfile.mkdtemp(prefix="weir-"))  # the paths of Ray's sockets must be short
    redis = RedisServer(folder / "redis", _free_port(), folder / "redis.log")
    redis.start()
    with Redis(port=redis.port) as client:
        client.config_set("requirepass", _SECRET["redis-password"])
    network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    unset = ("PYTHONDONTWRITEBYTECODE", "RAY_", "WEIR_")  # those of the manifests are to do
    environment = {n: value for n, value in package_env.items() if not n.startswith(unset)}
    made = Pods(folder, network, redis, environment)
    try:
        yield made
    finally:
        made.stop()
        redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _values() -> dict[str, Any]:
    """One pod of each kind, with stubs for engines."""
    laptop = yaml.safe_load(values_file("laptop").read_text())
    stub = {"mode": "stub", "args": {"interval_ms": 5}}
    models = [{**each, "replicas": 1, "engine": stub} for each in laptop["settings"]["models"]]
    tenants = [{"id": "shop", "key_sha256": [hash_key(_KEY)]}]
    return {
        "settings": {"models": models, "tenants": tenants},
        "gateways": {"groups": [{"name": "main", "replicas": 1}]},
        "monitoring": {"rules": False, "dashboards": False},
    }


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    spec = pod["spec"]
    (container,) = (spec["template"]["spec"] if "template" in spec else spec)["containers"]
    return dict(container)


def _start(pods: Pods) -> None:
    """In the order in which a cluster would have them."""
    cluster = pods.one("RayService", "weir")["spec"]["rayClusterConfig"]
    pods.start_ray("head", cluster["headGroupSpec"])
    migrated = pods.run("job", _container(pods.one("Job", "weir-migrate")))
    assert migrated.returncode == 0, migrated.stderr
    pods.start("control", _container(pods.one("Deployment", "weir-control")))
    pods.start("front", _container(pods.one("Deployment", "weir-front")))
    _await("Serve's REST API", lambda: bool(pods.ask("GET")))
    pods.ask("PUT", pods.serve_config())
    for group in cluster["workerGroupSpecs"]:
        pods.start_ray(group["groupName"], group)
    _await("the application runs", pods.runs)
    front = f"http://{pods.address('front')}:8000/health"
    _await("the front door is ready", lambda: httpx.get(front, timeout=5).status_code == 200)


def test_the_rendered_chart_answers_and_a_change_restarts_only_what_it_changes(pods: Pods) -> None:
    helm = helm_binary()
    if helm is None:
        pytest.skip("helm is not here: make helm")
    pods.render(helm, _values())
    _start(pods)

    told = pods.run("test", _container(pods.one("Pod", "weir-test")))
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()
    _check_metrics(pods)

    before = pods.replicas()
    assert {name: len(ids) for name, ids in before.items()} == {
        "gateway": 1,
        "model-weir-teacher": 1,
        "model-weir-student": 1,
    }
    values = _values()
    values["settings"]["models"][1]["engine"] = {"mode": "stub", "args": {"interval_ms": 6}}
    pods.render(helm, values)
    pods.ask("PUT", pods.serve_config())
    old = before.pop("model-weir-student")
    _await("another student", lambda: not pods.replicas().get("model-weir-student", old) & old)
    _await("the application runs", pods.runs)
    assert {name: pods.replicas()[name] for name in before} == before
    student = _container(pods.one("Pod", "weir-test"))
    student["command"] = [
        each.replace("weir-teacher", "weir-student") for each in student["command"]
    ]
    told = pods.run("test", student)
    assert told.returncode == 0, told.stderr


def _check_metrics(pods: Pods) -> None:
    """Where a PodMonitor asks for them."""
    where = f"http://{pods.address('gateway-main')}:8001"
    watcher = {"authorization": f"Bearer {_SECRET['internal-token']}"}
    with httpx.Client(base_url=where, timeout=10) as client:
        assert client.get("/ready").status_code == 200
        assert client.get("/metrics/part").status_code == 401
        figures = client.get("/metrics/part", headers=watcher).text
        assert "weir_requests_total{" in figures
        assert client.get("/v1/models", headers=watcher).status_code == 404
