"""The chart's platform from the rendered manifests to a first answer, without Kubernetes.

Each pod is processes on this machine at a loopback address of its own: the commands, environments,
labels and settings are those of the rendered manifests, in which only names (of the DNS), folders
and ``0.0.0.0`` are replaced. What the operator does is done as it does it: ``ray start`` in each
pod, and ``serveConfigV2`` by Serve's REST API. Engines are stubs.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import Redis

from deployments.redis_server import RedisServer
from k8s.rendering import helm_binary, values_file
from tests.e2e.pods import KEY, SECRETS, Pods, free_port, wait_for
from weir.tenancy import hash_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]


@pytest.fixture
def pods(package_env: dict[str, str]) -> Iterator[Pods]:
    folder = Path(tempfile.mkdtemp(prefix="weir-"))  # the paths of Ray's sockets must be short
    redis = RedisServer(folder / "redis", free_port(), folder / "redis.log")
    redis.start()
    with Redis(port=redis.port) as client:
        client.config_set("requirepass", SECRETS["redis-password"])
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
    tenants = [{"id": "shop", "key_sha256": [hash_key(KEY)]}]
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
    wait_for("Serve's REST API", lambda: bool(pods.ask("GET")))
    pods.ask("PUT", pods.serve_config())
    for group in cluster["workerGroupSpecs"]:
        pods.start_ray(group["groupName"], group)
    wait_for("the application runs", pods.runs)
    front = f"http://{pods.address('front')}:8000/health"
    wait_for("the front door is ready", lambda: httpx.get(front, timeout=5).status_code == 200)


def test_the_rendered_chart_answers_outlives_its_head_and_restarts_only_what_changes(
    pods: Pods,
) -> None:
    helm = helm_binary()
    if helm is None:
        pytest.skip("helm is not here: make helm")
    pods.render(helm, _values())
    _start(pods)
    _chat(pods)
    _check_metrics(pods)
    before = pods.replicas()
    assert before.keys() == {"gateway", "model-weir-teacher", "model-weir-student"}
    assert all(len(replicas) == 1 for replicas in before.values())

    pods.lose("head")
    _chat(pods)
    cluster = pods.one("RayService", "weir")["spec"]["rayClusterConfig"]
    pods.start_ray("head", cluster["headGroupSpec"])
    wait_for("the application is known again", pods.runs)
    assert pods.replicas() == before

    values = _values()
    values["settings"]["models"][1]["engine"] = {"mode": "stub", "args": {"interval_ms": 6}}
    pods.render(helm, values)
    pods.ask("PUT", pods.serve_config())
    old = before.pop("model-weir-student")
    wait_for("another student", lambda: not pods.replicas().get("model-weir-student", old) & old)
    wait_for("the application runs", pods.runs)
    assert {name: pods.replicas()[name] for name in before} == before
    _chat(pods, "weir-student")


def _chat(pods: Pods, model: str = "weir-teacher") -> None:
    """What ``helm test`` asks, through the front door."""
    container = _container(pods.one("Pod", "weir-test"))
    container["command"] = [each.replace("weir-teacher", model) for each in container["command"]]
    told = pods.run("test", container)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()


def _check_metrics(pods: Pods) -> None:
    """Where a PodMonitor asks for them."""
    where = f"http://{pods.address('gateway-main')}:8001"
    watcher = {"authorization": f"Bearer {SECRETS['internal-token']}"}
    with httpx.Client(base_url=where, timeout=10) as client:
        assert client.get("/ready").status_code == 200
        assert client.get("/metrics/part").status_code == 401
        figures = client.get("/metrics/part", headers=watcher).text
        assert "weir_requests_total{" in figures
        assert client.get("/v1/models", headers=watcher).status_code == 404
