"""Streams against a platform that changes: clients leave, replicas are taken away."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me everything about my order."}],
    "stream": True,
    "temperature": 0,
}


def _wait_for(condition: Any, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_client_that_leaves_frees_the_engine_at_once(platform: Any) -> None:
    """vLLM's own gauge goes back to 0 long before the answer would have ended."""
    body = {**LONG, "model": platform.model, "max_tokens": 1900, "ignore_eos": True}
    with (
        platform.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
        _wait_for(lambda: platform.engine_running() >= 1, 10, "the engine never started")
    left = time.monotonic()
    _wait_for(lambda: platform.engine_running() == 0, 10, "the engine still runs the request")
    assert time.monotonic() - left < 5
    assert "weir_requests_cancelled_total{" in platform.metrics()


def test_clients_that_leave_plain_requests_free_the_engine(platform: Any) -> None:
    """Nothing is written to these clients, so only their leaving itself can be noticed."""
    body = {**LONG, "model": platform.model, "max_tokens": 1900, "ignore_eos": True}

    def leave(timeout_s: float) -> None:
        with platform.http() as http, pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json={**body, "stream": False}, timeout=timeout_s)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(leave, [0.2, 0.3, 0.5, 0.7] * 4))
    left = time.monotonic()
    _wait_for(lambda: platform.engine_running() == 0, 10, "the engine still runs requests")
    assert time.monotonic() - left < 3


def _replicas(platform: Any) -> Any:
    with platform.http() as http:
        return http.get("/ready").json()["replicas"]


def _actors(platform: Any) -> set[str]:
    """Ids of all model replicas."""
    headers = {"authorization": f"Bearer {platform.internal_token}"}
    with platform.http() as http:
        deployments = http.get("/weir/status", headers=headers).json()["deployments"]
    return {replica["replica_id"] for each in deployments for replica in each["replicas"]}


async def _stream(platform: Any, tokens: int) -> tuple[int, str | None]:
    client = platform.async_client()
    count, reason = 0, None
    stream = await client.chat.completions.create(
        **LONG,
        model=platform.model,
        max_tokens=tokens,
        extra_body={"ignore_eos": True},
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if chunk.usage:
            count = chunk.usage.completion_tokens
        elif chunk.choices[0].finish_reason:
            reason = chunk.choices[0].finish_reason
    await client.close()
    return count, reason


async def test_scale_down_waits_for_streams_in_flight(platform: Any) -> None:
    """2 replicas to 1 while both stream: no stream breaks, and then there is one replica."""
    streams = [asyncio.create_task(_stream(platform, 1500)) for _ in range(6)]
    async with asyncio.timeout(60):
        while platform.engine_running() < 6:  # noqa: ASYNC110 - the engines make it true
            await asyncio.sleep(0.1)
    before = _actors(platform)
    scaled = await asyncio.to_thread(
        platform.weir, "apply", "--scale", f"{platform.model}=1", timeout_s=240
    )
    results = await asyncio.gather(*streams)
    assert scaled.returncode == 0, scaled.stderr
    assert results == [(1500, "length")] * 6
    assert _replicas(platform)[platform.model] == 1
    assert _actors(platform) < before, "who stays is not restarted"
    assert len(before - _actors(platform)) == 1
    # And back, so that the other tests find what they expect; requests go on meanwhile.
    grown = asyncio.create_task(
        asyncio.to_thread(platform.weir, "apply", "--scale", f"{platform.model}=2", timeout_s=240)
    )
    while not grown.done():
        assert (await _stream(platform, 20))[0] == 20
    assert grown.result().returncode == 0, grown.result().stderr
    assert _replicas(platform)[platform.model] == 2
    assert len(_actors(platform) & before) == len(before) - 1
