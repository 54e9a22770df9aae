"""The adapter against a real Ray Serve: membership is pushed, handle calls still work."""

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
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16),
                  RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP="0", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
import router.scorers
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
