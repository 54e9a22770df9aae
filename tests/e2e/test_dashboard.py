"""The dashboard at the platform's own address, with a request that real engines have answered."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e
_PATIENCE_S = 60.0


def _live(platform: Any, path: str, key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{platform.url}{path}", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _seen(
    platform: Any, path: str, key: str, request: str, replicas: int | None = None
) -> dict[str, Any]:
    """The page's figures, once the request is among the last ones, and there are so many replicas:
    one that an earlier test has ended may still be on its way back."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        body = _live(platform, path, key)
        there = replicas is None or len(body["replicas"]) == replicas
        if there and any(row["id"] == request for row in body["recent"]):
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.5)


def test_a_request_is_seen_by_its_tenant_and_the_operator(platform: Any) -> None:
    assert "<title>weir" in httpx.get(f"{platform.url}/dashboard").text
    body = {
        "model": platform.model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    headers = {"x-request-id": "e2e-dashboard"}
    with platform.http() as client:
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200
    own = _seen(platform, "/v1/tenant/live", platform.key, "e2e-dashboard")
    assert own["replicas"] is None
    assert {row["tenant"] for row in own["recent"]} == {"demo"}
    whole = _seen(platform, "/admin/v1/live", platform.admin_key, "e2e-dashboard", 3)
    assert whole["gateways"] >= 1  # one answers, others stand by
    assert len(whole["replicas"]) == 3
    path = "/v1/tenant/requests/e2e-dashboard"
    (followed,) = _live(platform, path, platform.key)["data"]
    (leg,) = followed["attempts"][-1]["legs"]
    assert answer.headers["x-weir-replica"] == leg["replica"]
    assert leg["output_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert leg["candidates"] is None
