"""Streams against a platform that changes: clients leave, replicas are taken away."""

from __future__ import annotations

import asyncio
import time
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
    with platform.http() as http:
        assert "weir_requests_cancelled_total{" in http.get("/metrics").text


def test_a_client_that_leaves_a_plain_request_frees_the_engine(platform: Any) -> None:
    body = {
        **LONG,
        "model": platform.model,
        "max_tokens": 1900,
        "ignore_eos": True,
        "stream": False,
    }
    with platform.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1.0)
    _wait_for(lambda: platform.engine_running() == 0, 10, "the engine still runs the request")


def _replicas(platform: Any) -> Any:
    with platform.http() as http:
        return http.get("/ready").json()["replicas"]


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
    await asyncio.sleep(1.0)
    assert platform.engine_running() == 6
    scaled = await asyncio.to_thread(
        platform.weir, "apply", "--scale", f"{platform.model}=1", timeout_s=240
    )
    results = await asyncio.gather(*streams)
    assert scaled.returncode == 0, scaled.stderr
    assert results == [(1500, "length")] * 6
    assert _replicas(platform) == {platform.model: 1}
    # And back, so that the other tests find what they expect; requests go on meanwhile.
    grown = asyncio.create_task(
        asyncio.to_thread(platform.weir, "apply", "--scale", f"{platform.model}=2", timeout_s=240)
    )
    while not grown.done():
        assert (await _stream(platform, 20))[0] == 20
    assert grown.result().returncode == 0, grown.result().stderr
    assert _replicas(platform) == {platform.model: 2}


def test_a_prompt_goes_where_its_prefix_is_and_others_are_shared_out(platform: Any) -> None:
    def ask(text: str) -> tuple[str, int]:
        body = {
            "model": platform.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
        }
        response = http.post("/v1/chat/completions", json=body)
        details = response.json()["usage"]["prompt_tokens_details"]
        return response.headers["x-weir-replica"], details["cached_tokens"]

    with platform.http() as http:
        different = {ask(f"{number} " * 50)[0] for number in range(20)}
        first = ask("the same long question " * 20)
        time.sleep(1)  # the engine's event confirms what it holds
        again = [ask("the same long question " * 20) for _ in range(6)]
    assert len(different) == 2, "idle replicas share what is new to both"
    assert {replica for replica, _ in again} == {first[0]}
    assert first[1] == 0
    assert all(cached > 0 for _, cached in again)
