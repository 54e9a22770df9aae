"""The admin API through the front door: from the operator's first key to a tenant's answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.e2e
_PATIENCE_S = 60.0


@pytest.fixture
def admin(platform: Any) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {platform.admin_key}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client:
        yield client


def _eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _chat(platform: Any, key: str) -> int:
    body = {
        "model": platform.model,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": "Hello"}],
        "metadata": {"label": "e2e"},
    }
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(
        f"{platform.url}/v1/chat/completions", json=body, headers=headers, timeout=120
    )
    return answer.status_code


def test_only_the_operators_key_opens_it(platform: Any, admin: httpx.Client) -> None:
    path = "/admin/v1/tenants"
    answer = admin.get(path, headers={"x-request-id": "e2e-admin"})
    assert answer.status_code == 200
    assert "demo" in [tenant["id"] for tenant in answer.json()["data"]]
    assert answer.headers["x-request-id"] == "e2e-admin"
    assert httpx.get(f"{platform.url}{path}").status_code == 401
    with platform.http() as tenant:
        assert tenant.get(path).status_code == 403
        assert tenant.get("/v1/tenant").json()["id"] == "demo"
    assert httpx.get(f"{platform.url}{path}/openapi.json").status_code == 401
    assert httpx.get(f"{platform.url}/admin/v1/openapi.json").status_code == 200
    said = platform.weir("admin", "key")
    assert said.stdout.strip() == platform.admin_key


def test_a_tenant_is_made_used_billed_and_shut_out(platform: Any, admin: httpx.Client) -> None:
    made = admin.post("/admin/v1/tenants", json={"id": "e2e-admin", "models": [platform.model]})
    assert made.status_code == 201, made.text
    key = admin.post("/admin/v1/tenants/e2e-admin/keys", json={"name": "k"}).json()
    _eventually(lambda: _chat(platform, key["secret"]) == 200)
    used: dict[str, Any] = {}

    def is_booked() -> bool:
        rows = admin.get("/admin/v1/tenants/e2e-admin/usage", params={"by": "label"}).json()
        used.update({row["label"]: row for row in rows["data"]})
        return "e2e" in used

    _eventually(is_booked)
    assert used["e2e"]["requests"] >= 1
    assert used["e2e"]["output_tokens"] >= 1
    revoked = admin.delete(f"/admin/v1/tenants/e2e-admin/keys/{key['id']}")
    assert revoked.status_code == 200
    _eventually(lambda: _chat(platform, key["secret"]) == 401)
    tag = admin.get("/admin/v1/tenants/e2e-admin").headers["etag"]
    gone = admin.delete("/admin/v1/tenants/e2e-admin", headers={"if-match": tag})
    assert gone.status_code == 204
    log = admin.get("/admin/v1/audit", params={"tenant": "e2e-admin"}).json()["data"]
    assert [entry["action"] for entry in log][-1] == "tenant.create"
    assert key["secret"] not in json.dumps(log)


def test_while_it_is_away_models_answer_and_it_comes_again(
    platform: Any, admin: httpx.Client
) -> None:
    record = json.loads((platform.home / "platform.json").read_text())["parts"]["control process"]
    process = psutil.Process(int(record["pid"]))
    process.kill()
    process.wait(timeout=10)
    statuses = set()

    def is_back() -> bool:
        answer = admin.get("/admin/v1/tenants")
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "overloaded_error"
        statuses.add(answer.status_code)
        return answer.status_code == 200

    assert not is_back()
    assert _chat(platform, platform.key) == 200
    _eventually(is_back)
    assert statuses == {200, 503}
    _eventually(lambda: platform.weir("status", "--json").returncode == 0)
