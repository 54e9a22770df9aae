"""Routing by what the replicas' KV caches hold, seen from outside."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_a_prompt_goes_where_its_prefix_is_and_others_are_shared_out(platform: Any) -> None:
    def ask(text: str) -> tuple[str, int]:
        body = {
            "model": platform.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 8,
        }
        response = http.post("/v1/chat/completions", json=body)
        details = response.json()["usage"]["prompt_tokens_details"]
        return response.headers["x-weir-replica"], details["cached_tokens"]

    with platform.http() as http:
        # At once: for its first seconds a replica that came a little later counts as slower.
        with ThreadPoolExecutor(8) as clients:
            asked = clients.map(ask, [f"{number} " * 50 for number in range(24)])
            different = {replica for replica, _ in asked}
        first = ask("the same long question " * 20)
        time.sleep(1)  # the engine's event confirms what it holds
        again = [ask("the same long question " * 20) for _ in range(6)]
    assert len(different) == 2, "replicas share what is new to both"
    assert {replica for replica, _ in again} == {first[0]}
    assert first[1] == 0
    assert all(cached > 0 for _, cached in again)


def test_engines_tell_what_they_cache(platform: Any) -> None:
    """The gateway hears of blocks: it does not only guess from what it sent."""
    body = {
        "model": platform.model,
        "messages": [{"role": "user", "content": f"a question of its own {time.time()} " * 30}],
        "max_tokens": 40,
    }

    def told() -> float:
        lines = platform.metrics().splitlines()
        found = [x for x in lines if x.startswith("weir_kv_event_blocks{")]
        assert found
        return sum(float(line.rpartition(" ")[2]) for line in found)

    before = told()
    deadline = time.monotonic() + 20
    with platform.http() as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200
    while told() <= before:
        assert time.monotonic() < deadline
        time.sleep(0.3)
