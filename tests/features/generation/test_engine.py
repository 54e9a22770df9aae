"""The whole command with the real teacher: Ray Data, vLLM, grammar, checks, Feast, Redis."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deployments.redis_server import RedisServer
from features.tail import TailQueue


@pytest.mark.engine
def test_the_teacher_writes_about_the_queues_entities(
    redis_server: RedisServer, tmp_path: Path, package_env: dict[str, str]
) -> None:
    url = redis_server.url.removesuffix("/0") + "/7"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": package_env["PYTHONPATH"], "WEIR_HOME": str(tmp_path / "home")}

    def weir(*arguments: str) -> str:
        command = [sys.executable, "-m", "weir.cli.main", "features", *arguments]
        command += ["--data", str(tmp_path / "data"), "--redis", url]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
        assert run.returncode == 0, run.stderr
        return run.stdout

    async def queue(use: str) -> object:
        async with Redis.from_url(url) as redis:
            tail = TailQueue(redis)
            if use == "waiting":
                return await tail.waiting()
            for entity in ("10001", "10002", "10003", "10002", "nobody"):
                await tail.note("demo", entity)
            return await tail.flush()

    weir("apply", "--customers", "40")
    asyncio.run(queue("note"))
    said = json.loads(weir("generate", "--from-queue", "--count", "3", "--json"))
    assert said["entities_paid"] == said["published"] == said["materialized"] == 3
    assert said["parts"] == {"published": 1, "quarantined": 0, "left": 0}
    assert asyncio.run(queue("waiting")) == {"demo": 0}
    held = json.loads(weir("inspect", "demo/10002", "--json"))
    assert held["long_tail"] is False
    values = held["views"]["customer_generated"]["values"]
    assert values["tone"] in ("neutral", "warm", "brief", "formal")
    assert values["model_id"] == "weir-teacher"
    assert len(values["checkpoint_sha256"]) == len(values["template_sha256"]) == 64
