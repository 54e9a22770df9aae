"""Bad input: always a 4xx in OpenAI's shape that names the field, never a 500, nothing leaked."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


def _post(platform: Any, body: Any, path: str = CHAT, **headers: str) -> Any:
    with platform.http() as http:
        if isinstance(body, bytes):
            extra = {"content-type": "application/json", **headers}
            return http.post(path, content=body, headers=extra)
        return http.post(path, json=body, headers=headers)


def _error(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("no messages", {}, "messages"),
    ("empty messages", {"messages": []}, "messages"),
    ("messages of a wrong type", {"messages": "hello"}, "messages"),
    ("a message without content", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("an unknown role", {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    (
        "content of a wrong type",
        {"messages": [{"role": "user", "content": 5}]},
        "messages[0].content",
    ),
    ("negative max_tokens", {"messages": HELLO, "max_tokens": -1}, "max_tokens"),
    ("max_tokens as text", {"messages": HELLO, "max_tokens": "five"}, "max_tokens"),
    ("a temperature out of range", {"messages": HELLO, "temperature": 3}, "temperature"),
    ("top_p of zero", {"messages": HELLO, "top_p": 0}, "top_p"),
    ("too many choices", {"messages": HELLO, "n": 1000}, "n"),
    ("stream as text", {"messages": HELLO, "stream": "maybe"}, "stream"),
    ("an empty stop", {"messages": HELLO, "stop": [""]}, "stop[0]"),
    (
        "a schema without a schema",
        {"messages": HELLO, "response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
]


@pytest.mark.parametrize(("body", "param"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_wrong_field_is_named(platform: Any, body: dict[str, Any], param: str) -> None:
    error = _error(_post(platform, {"model": platform.model, **body}), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "\xff\xfe"}', b"{" * 5000],
    ids=["empty", "cut off", "array", "null", "string", "bad utf-8", "deep"],
)
def test_a_body_that_is_no_request(platform: Any, body: bytes) -> None:
    _error(_post(platform, body), 400)


def test_an_unknown_field_is_ignored_and_named(platform: Any) -> None:
    body = {"model": platform.model, "messages": HELLO, "max_tokens": 2, "frobnicate": 1}
    response = _post(platform, body)
    assert response.status_code == 200, response.text
    assert response.headers["x-weir-ignored"] == "frobnicate"


def test_unknown_model(platform: Any) -> None:
    error = _error(_post(platform, {"model": "gpt-99", "messages": HELLO}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_prompt_longer_than_the_context(platform: Any) -> None:
    long = [{"role": "user", "content": "order 12345 " * 3000}]
    error = _error(_post(platform, {"model": platform.model, "messages": long}), 400)
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
    too_much = {"model": platform.model, "messages": HELLO, "max_tokens": 100_000}
    error = _error(_post(platform, too_much), 400)
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")


def test_body_too_large(platform: Any) -> None:
    huge = b'{"model": "x", "messages": "' + b"a" * (5 * 1024 * 1024) + b'"}'
    assert _error(_post(platform, huge), 413)["code"] == "request_too_large"


def test_body_that_is_not_json_by_its_own_word(platform: Any) -> None:
    response = _post(platform, b"model=x", CHAT, **{"content-type": "text/plain"})
    assert _error(response, 415)["param"] == "Content-Type"


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer weir_wrong", "Basic abc", "weir_x"])
def test_missing_or_wrong_key(platform: Any, key: str) -> None:
    body = {"model": platform.model, "messages": HELLO}
    error = _error(_post(platform, body, CHAT, authorization=key), 401)
    assert error["code"] == "invalid_api_key"
    assert error["param"] == "Authorization"


def test_unknown_path_and_method(platform: Any) -> None:
    assert _error(_post(platform, {}, "/v1/nothing"), 404)["code"] == "not_found"
    with platform.http() as http:
        assert _error(http.get(CHAT), 405)["code"] == "method_not_allowed"


def test_token_id_out_of_range(platform: Any) -> None:
    body = {"model": platform.model, "prompt": [1, 10_000_000], "max_tokens": 1}
    assert _error(_post(platform, body, "/v1/completions"), 400)["param"] == "prompt[1]"


def test_replicas_answer_only_their_gateway(platform: Any) -> None:
    import httpx

    replicas = [
        r for d in platform.status()["deployments"] for r in d["replicas"] if r.get("address")
    ]
    assert replicas
    response = httpx.get(f"http://{replicas[0]['address']}/v1/models")
    assert response.status_code == 401


def test_nothing_stays_reserved(platform: Any) -> None:
    """After all that was refused, no replica believes that it has work."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        metrics = platform.metrics()
        lines = [x for x in metrics.splitlines() if x.startswith("weir_outstanding_tokens{")]
        assert lines
        if not any(float(x.rpartition(" ")[2]) for x in lines) and platform.engine_running() == 0:
            return
        time.sleep(0.2)
    pytest.fail(f"still outstanding: {lines}")
