"""The adapter against a real Ray Serve: membership is pushed, handle calls follow the policy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

# A process of its own: Ray's imports warn, and its cluster ends with the process.
_SCRIPT = """
import asyncio, collections, json, os, random, secrets, time
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
    async def whoami(self, seconds=0.0):
        await asyncio.sleep(seconds)
        return self.me

def deploy(replicas, policy, name="echo"):
    config = RequestRouterConfig(
        request_router_class="router.ray_adapter.WeirRequestRouter",
        request_router_kwargs={"policy": policy})
    app = Echo.options(num_replicas=replicas, request_router_config=config,
                       ray_actor_options={"num_cpus": 0}, graceful_shutdown_wait_loop_s=0.1).bind()
    return serve.run(app, name=name, route_prefix=None)

async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.1)

async def main():
    out = {}
    handle = deploy(2, "round-robin")
    counts = collections.Counter([await handle.whoami.remote() for _ in range(20)])
    out["round_robin"] = sorted(counts.values())
    mine = Router(build_policy("weir"), time.monotonic, random.Random(0))
    async with handle.choose_replica(Subscription(mine)):
        pass
    out["members"] = len(mine.members)
    out["blocks"] = [info.kv_blocks_total for info in mine.members]
    out["same_ids"] = {info.replica_id for info in mine.members} == set(counts)
    await asyncio.to_thread(deploy, 1, "round-robin")
    await until(lambda: len(mine.members) == 1)
    out["after_scale_down"] = len(mine.members)

    handle = deploy(2, "least-outstanding-tokens", "another")
    slow = [handle.whoami.remote(6.0) for _ in range(1)]
    busy_is = asyncio.ensure_future(asyncio.gather(*slow))
    await asyncio.sleep(0.5)
    quick = set()
    for _ in range(6):
        quick.add(await handle.whoami.remote())
        await asyncio.sleep(0.2)  # Serve reports an end a little after the answer
    out["avoids_the_busy_one"] = quick.isdisjoint(await busy_is)
    after = {await handle.whoami.remote() for _ in range(20)}
    out["forgets_when_done"] = len(after)
    print("RESULT" + json.dumps(out), flush=True)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="serve",
         _node_ip_address="127.0.0.2")
serve.start(proxy_location="Disabled")
asyncio.run(main())
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def result(
    package_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
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


def test_handle_calls_follow_the_policy(result: dict[str, object]) -> None:
    assert result["round_robin"] == [10, 10]


def test_least_outstanding_counts_calls_until_they_end(result: dict[str, object]) -> None:
    assert result["avoids_the_busy_one"] is True
    assert result["forgets_when_done"] == 2


def test_a_subscribed_router_follows_the_replica_set(result: dict[str, object]) -> None:
    assert result["members"] == 2
    assert result["blocks"] == [7, 7]
    assert result["same_ids"] is True
    assert result["after_scale_down"] == 1
