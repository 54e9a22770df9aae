"""The adapter against a real Ray Serve: membership is pushed, handle calls still work, and whoever
follows a model that sleeps does not wake it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

# A process of its own: Ray's imports warn, and its cluster ends with the process.
_SCRIPT = """
import asyncio, json, os, random, secrets, time
from pathlib import Path
from types import SimpleNamespace
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16),
                  RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP="0", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
import router.scorers
from deployments.gateway.fleet import Fleet
from router.policy import build_policy
from router.router import Router
from router.subscription import Subscription

@serve.deployment
class Echo:
    def __init__(self):
        self.me = serve.get_replica_context().replica_id.unique_id
    async def record_replica_metadata(self):
        return {"address": "127.0.0.1:1", "kv_blocks_total": 7}
    async def whoami(self):
        return self.me

def deploy(replicas, name="echo"):
    config = RequestRouterConfig(
        request_router_class="router.ray_adapter.WeirRequestRouter")
    app = Echo.options(num_replicas=replicas, request_router_config=config,
                       ray_actor_options={"num_cpus": 0}, graceful_shutdown_wait_loop_s=0.1).bind()
    return serve.run(app, name=name, route_prefix=None)

STARTS, WANTED = str(Path("starts").absolute()), str(Path("wanted").absolute())

@serve.deployment
class Sleeper:
    def __init__(self):
        with open(STARTS, "a") as file:
            file.write("started\\n")
    async def record_replica_metadata(self):
        return {"address": "127.0.0.1:1"}

def decided(context):
    return int(open(WANTED).read()), {}

def want(replicas):
    Path(WANTED + ".new").write_text(str(replicas))
    Path(WANTED + ".new").rename(WANTED)

def deploy_sleeper():
    at_once = {"upscale_delay_s": 0.0, "downscale_delay_s": 0.0, "downscale_to_zero_delay_s": 0.0,
               "metrics_interval_s": 0.2, "look_back_period_s": 1.0}
    bounds = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 2}
    scaling = bounds | at_once | {"policy": {"policy_function": decided}}
    config = RequestRouterConfig(
        request_router_class="router.ray_adapter.WeirRequestRouter")
    app = Sleeper.options(autoscaling_config=scaling, request_router_config=config,
                          ray_actor_options={"num_cpus": 0}).bind()
    return serve.run(app, name="sleeper", route_prefix=None)

def starts():
    return len(Path(STARTS).read_text().splitlines()) if Path(STARTS).exists() else 0

async def follow_a_sleeper(out):
    want(0)
    handle = await asyncio.to_thread(deploy_sleeper)
    mine = Router(build_policy("weir"), time.monotonic, random.Random(0))
    following = asyncio.create_task(Fleet.follow(SimpleNamespace(router=mine), handle))
    await asyncio.sleep(4)
    out["woken_by_who_follows"] = starts()
    want(1)
    await until(lambda: len(mine.members) == 1)
    out["heard_when_decided"] = starts()
    want(0)
    await until(lambda: not mine.members)
    await asyncio.sleep(4)
    out["woken_again"] = starts()
    following.cancel()
    try:  # a call, of which Serve knows: so a replica that starts is seen here
        async with asyncio.timeout(30):
            async with handle.choose_replica(Subscription(mine)):
                pass
    except TimeoutError:
        pass
    out["woken_by_a_call"] = starts()

async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.1)

async def main():
    out = {}
    handle = deploy(2)
    out["answered"] = await handle.whoami.remote()
    mine = Router(build_policy("weir"), time.monotonic, random.Random(0))
    async with handle.choose_replica(Subscription(mine)):
        pass
    out["members"] = len(mine.members)
    out["blocks"] = [info.kv_blocks_total for info in mine.members]
    out["ids"] = [info.replica_id for info in mine.members]
    await asyncio.to_thread(deploy, 1)
    await until(lambda: len(mine.members) == 1)
    out["after_scale_down"] = len(mine.members)
    await follow_a_sleeper(out)
    print("RESULT" + json.dumps(out), flush=True)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="serve",
         _node_ip_address="127.0.0.2")
serve.start(proxy_location="Disabled")
asyncio.run(main())
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def result(package_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = tmp_path_factory.mktemp("adapter") / "script.py"
    script.write_text(_SCRIPT)
    env = {k: v for k, v in package_env.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(script).parent,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return dict(json.loads(lines[0].removeprefix("RESULT")))


def test_a_subscribed_router_follows_the_replica_set(result: dict[str, Any]) -> None:
    assert result["members"] == 2
    assert result["blocks"] == [7, 7]
    assert result["answered"] in result["ids"], "a call through the handle finds a replica, too"
    assert result["after_scale_down"] == 1


def test_who_follows_a_model_that_sleeps_does_not_wake_it(result: dict[str, Any]) -> None:
    """Only what the autoscaler decides does."""
    assert result["woken_by_who_follows"] == 0
    assert result["heard_when_decided"] == 1
    assert result["woken_again"] == 1
    assert result["woken_by_a_call"] > 1, "Serve wakes it for a call, which would be seen"
