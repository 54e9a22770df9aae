"""The pods of a rendered chart as processes on this machine."""

from __future__ import annotations

import contextlib
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from deployments.redis_server import RedisServer
from k8s.rendering import objects, template, values_file

UP_S = 240.0
_PODS = ("head", "gateway-main", "front", "control", "weir-teacher", "weir-student", "job", "test")
KEY = "weir_of-the-test"
SECRETS = {
    "internal-token": "internal-of-the-test",
    "redis-password": "redis-of-the-test",
    "test-api-key": KEY,
}
_RAY_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ray-of-the-test" * 3}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(what: str, done: Callable[[], bool], seconds: float = UP_S) -> None:
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
    gcs_port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)

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
        options += ["--dashboard-agent-listen-port", str(free_port())]
        options += ["--temp-dir", str(self.folder / name / "ray")]
        head = self.address("head")
        if name == "head":
            options += ["--head", "--port", str(self.gcs_port), "--dashboard-host", head]
            options += ["--dashboard-port", str(self.dashboard_port)]
            options += ["--ray-client-server-port", str(free_port())]
            options += ["--redis-password", SECRETS["redis-password"]]
        else:
            options += ["--address", f"{head}:{self.gcs_port}"]
        command = ["python", "-m", "ray.scripts.scripts", "start", *options]
        env = [*container["env"], *self._fault_tolerance(name == "head")]
        self.start(name, {**container, "env": env, "command": command})

    def lose(self, name: str) -> None:
        """The pod is gone, with what was in it."""
        self._kill([self.running.pop(name)])
        shutil.rmtree(self.folder / name)

    def _fault_tolerance(self, head: bool) -> list[dict[str, Any]]:
        """What the operator makes of ``gcsFaultToleranceOptions``."""
        cluster = self.one("RayService", "weir")["spec"]["rayClusterConfig"]
        told = cluster["gcsFaultToleranceOptions"]
        patience = {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"}
        if not head:
            return [patience]
        return [
            patience,
            {"name": "RAY_REDIS_ADDRESS", "value": told["redisAddress"]},
            {"name": "REDIS_PASSWORD", **told["redisPassword"]},
            {"name": "RAY_external_storage_namespace", "value": "weir"},
        ]

    def stop(self) -> None:
        """All of them. Ray would take half a minute to end in order."""
        self._kill(list(self.running.values()))

    def _kill(self, running: list[subprocess.Popen[bytes]]) -> None:
        own = [psutil.Process(each.pid) for each in running if each.poll() is None]
        processes = {below for each in own for below in each.children(recursive=True)}
        for process in [*own, *processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for started in running:
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
        return SECRETS.get(key) or {"database-url": f"sqlite:///{self.folder / 'weir.db'}"}[key]
