"""Gateways as processes that are killed (SIGKILL) while they compute the lines of a batch."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import redis as redis_client

from deployments.redis_server import RedisServer
from tests.deployments.accounts.conftest import free_port, started
from tests.deployments.accounts.gateways import gateways, most
from tests.deployments.batches.gateway_process import ACCOUNTS, QUOTAS
from tests.deployments.batches.worlds import CHAT, chat_line, jsonl
from weir.accounts import AccountKeys, ScopeUse, standing_of
from weir.tenancy import Quotas, Tenant

SCRIPT = Path(__file__).with_name("gateway_process.py")
TOTAL = 60
OUTPUT_TOKENS = 20


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = started(folder, free_port())
    yield server
    server.stop()


@pytest.fixture
def start(tmp_path: Path, redis: RedisServer, package_env: dict[str, str]) -> Any:
    running: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], openai.OpenAI]:
        command = [sys.executable, str(SCRIPT), str(tmp_path / "shared"), str(redis.port)]
        process = subprocess.Popen(command, env=package_env, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        return process, openai.OpenAI(base_url=f"{url}/v1", api_key="one", max_retries=0)

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_every_line_has_one_result_and_counts_once_though_gateways_are_killed(
    start: Callable[[], Any], redis: RedisServer
) -> None:
    process, client = start()
    lines = jsonl(chat_line(i, max_tokens=OUTPUT_TOKENS) for i in range(TOTAL))
    file = client.files.create(file=("x.jsonl", lines), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    for wanted in (TOTAL // 4, TOTAL // 2):
        _await(client, batch.id, lambda b, n=wanted: b.request_counts.completed >= n)
        process.kill()
        client.close()
        process, client = start()
    batch = _await(client, batch.id, lambda b: b.status == "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.completed == TOTAL
    assert batch.output_file_id is not None
    text = client.files.content(batch.output_file_id).text
    client.close()
    ids = sorted(line.split('"custom_id":"')[1].split('"')[0] for line in text.splitlines())
    assert ids == sorted(f"c{i}" for i in range(TOTAL))
    used = asyncio.run(_counted(redis.port))
    assert used.concurrent == 0
    assert used.daily[0] == TOTAL
    assert used.daily[2] == batch.usage.output_tokens == TOTAL * OUTPUT_TOKENS
    assert used.daily[1] == batch.usage.input_tokens


async def _counted(port: int) -> ScopeUse:
    """What counts in the tenant's quotas, once what the dead gateways had reserved is taken back:
    that is done by whoever asks next."""
    tenant = Tenant("one", quotas=Quotas(**QUOTAS))
    async with gateways(port, 1, **ACCOUNTS) as (gateway,):
        with redis_client.Redis(port=port) as client:
            deadline_s = time.monotonic() + 20
            while True:
                tab = gateway.open(tenant)
                charge = await tab.reserve(most(1))
                charge.give_back()
                tab.close([], counts=False)
                await asyncio.sleep(0.2)
                found = client.hgetall(AccountKeys.of("one").used)
                used = standing_of(found, int(time.time() * 1000)).scopes["t"]  # type: ignore[arg-type]
                settled = used.daily[0] == TOTAL and not used.concurrent
                if settled or time.monotonic() > deadline_s:
                    return used


def _await(client: openai.OpenAI, batch_id: str, wanted: Callable[[Any], bool]) -> Any:
    deadline_s = time.monotonic() + 60
    while True:
        batch = client.batches.retrieve(batch_id)
        if wanted(batch):
            return batch
        assert time.monotonic() < deadline_s, batch
        time.sleep(0.02)
