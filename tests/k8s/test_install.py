"""helm installs, upgrades, rolls back and removes the chart at a stand-in for Kubernetes' API.

The stand-in checks every object against its schema. It runs nothing.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from k8s.rendering import CHART, NAMESPACE, values_file

_START_S = 120


@dataclass(frozen=True)
class Release:
    """helm, talking to the stand-in."""

    helm: Path
    url: str
    kubeconfig: Path

    def run(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.helm), "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.kubeconfig.parent)},
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    def change(self, verb: str, name: str, *arguments: str) -> None:
        values = ("--values", str(values_file(name)))
        self.run(verb, "weir", str(CHART), "--disable-openapi-validation", *values, *arguments)

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}{path}", timeout=10)
        return answer.json() if answer.status_code == 200 else None

    def service(self) -> dict[str, Any]:
        path = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayservices/weir"
        return dict(self.get(path)["spec"])

    def names(self, path: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.get(path)["items"]}


@pytest.fixture
def release(helm: Path, shared: Path, crds: Path, tmp_path: Path) -> Iterator[Release]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = (tmp_path / "api.log").open("wb")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-P",
        str(shared / "miniapi.py"),
        str(port),
        str(crds),
    ]
    api = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(shared)}
    )
    config = tmp_path / "kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "clusters": [{"name": "it", "cluster": {"server": url}}],
                "users": [{"name": "it", "user": {}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            }
        )
    )
    config.chmod(0o600)
    try:
        _await(url, api)
        yield Release(helm, url, config)
    finally:
        api.terminate()
        api.wait(10)
        log.close()


def _await(url: str, api: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(f"{url}/version", timeout=2)
            return
        except httpx.HTTPError:
            assert api.poll() is None, "the stand-in ended"
            assert time.monotonic() < end, "the stand-in does not come up"
            time.sleep(0.1)


def replicas(service: dict[str, Any]) -> int:
    (config,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    return int(config["args"]["settings"]["models"][0]["replicas"])


def test_install_upgrade_rollback_uninstall(release: Release) -> None:
    release.change("install", "laptop")
    assert replicas(release.service()) == 2
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    first = release.names(jobs)
    assert len(first) == 1

    release.change("upgrade", "laptop", "--set", "settings.log.level=debug")
    config = f"/api/v1/namespaces/{NAMESPACE}/configmaps/weir-settings"
    assert "level: debug" in release.get(config)["data"]["settings.yaml"]
    second = release.names(jobs)
    assert len(second) == 1
    assert second != first

    release.run("rollback", "weir", "1")
    assert "level: debug" not in release.get(config)["data"]["settings.yaml"]
    assert release.names(jobs) == first
    history = json.loads(release.run("history", "weir", "-o", "json").stdout)
    assert [each["status"] for each in history] == ["superseded", "superseded", "deployed"]

    release.run("uninstall", "weir")
    assert release.get(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayservices/weir") is None
    assert release.names(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments") == set()


def test_from_the_readme_of_the_chart(release: Release, tmp_path: Path) -> None:
    """Its own words: the values that it has a newcomer write, and its command."""
    readme = (CHART / "README.md").read_text("utf-8")
    steps = readme[readme.index("## Install") : readme.index("## What the Secret holds")]
    written = steps[steps.index("ADMIN_KEY=") : steps.index("\n   ```", steps.index("ADMIN_KEY="))]
    script = "KEY=weir_k\nopenssl() { echo 00; }\n" + "\n".join(
        line.removeprefix("   ") for line in written.splitlines()
    )
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=30)
    assert (
        "helm install weir k8s/chart -n llm -f k8s/chart/values/laptop.yaml -f my-values.yaml"
        in steps
    )
    release.change("install", "laptop", "--values", str(tmp_path / "my-values.yaml"))
    settings = release.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/weir-settings")
    (tenant,) = yaml.safe_load(settings["data"]["settings.yaml"])["tenants"]
    assert tenant["id"] == "first"
    assert len(tenant["key_sha256"][0]) == 64


def test_the_stand_in_refuses_what_is_wrong(release: Release, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: wrong, version: 0.1.0}\n")
    (chart / "templates" / "it.yaml").write_text(
        "apiVersion: ray.io/v1\nkind: RayService\nmetadata: {name: it}\nspec: {typo: 1}\n"
    )
    done = release.run("install", "it", str(chart), "--disable-openapi-validation", ok=False)
    assert "typo" in done.stderr
