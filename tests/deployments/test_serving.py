"""The application by its path, built by the function with which Serve's REST API builds it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.engine

# Ray's imports warn in ways that are not ours to fix. Serve builds in a task, of which only the
# runtime environment is asked.
_SCRIPT = """
import json, sys
from types import SimpleNamespace
import ray
from ray.serve._private import application_state
from ray.serve.schema import LoggingConfig

application_state.configure_component_logger = lambda **_: None
ray.get_runtime_context = lambda: SimpleNamespace(runtime_env={}, get_job_id=lambda: "x")
told = []
for settings in json.load(sys.stdin):
    _, deployments, error = application_state.build_serve_application._function(
        "deployments.serving:build", "the-digest-of-args", "weir", {"settings": settings},
        LoggingConfig(), None, {}, {}, {})
    told.append({"error": error, "versions": {
        each["deployment_name"]: version_of(each) for each in deployments or ()}})
print("RESULT" + json.dumps(told))
"""
_VERSION = """
def version_of(packed):
    from ray.serve._private.config import DeploymentConfig
    return DeploymentConfig.from_proto_bytes(packed["deployment_config_proto_bytes"]).version
"""


def settings(**second: Any) -> dict[str, Any]:
    stub = {"source": "builtin:teacher", "num_cpus": 0}
    engine = {"mode": "stub", "args": {"interval_ms": 5}}
    return {
        "ray": {"address": "auto", "pool_labels": True},
        "redis": {"mode": "external", "url": "redis://127.0.0.1:1/0"},
        "models": [
            {"name": "first", "engine": engine, **stub},
            {"name": "second", "engine": engine, **stub, **second},
        ],
    }


@pytest.fixture(scope="module")
def built(package_env: dict[str, str]) -> list[dict[str, Any]]:
    other = {"engine": {"mode": "stub", "args": {"interval_ms": 6}}}
    trees = [settings(), settings(**other), settings(replicas=3)]
    done = subprocess.run(
        [sys.executable, "-c", _VERSION + _SCRIPT],
        env=package_env,
        input=json.dumps(trees),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-4000:]
    return list(json.loads(lines[0].removeprefix("RESULT")))


def test_it_is_what_weir_up_deploys(built: list[dict[str, Any]]) -> None:
    assert built[0]["error"] is None
    assert built[0]["versions"].keys() == {"gateway", "model-first", "model-second"}


def test_each_deployment_has_a_version_of_its_own(built: list[dict[str, Any]]) -> None:
    before, after = built[0]["versions"], built[1]["versions"]
    assert len(set(before.values())) == 3
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"model-second"}


def test_another_number_of_replicas_restarts_nobody(built: list[dict[str, Any]]) -> None:
    assert built[2]["versions"] == built[0]["versions"]
