"""What a client's request may tell Serve, when it comes past HAProxy."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.client_headers import ClientHeaders, harmless, middlewares

ID = b"x-request-id"


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-disconnect-disabled", b"?1"),
        (b"x_request_disconnect-disabled", b"?1"),
        (b"x-request-timeout-seconds", b"0.001"),
        (b"serve_multiplexed_model_id", b"m"),
        (b"serve-multiplexed-model-id", b"m"),
        (b"traceparent", b"\xff"),
        (b"x-session-id", b"caf\xe9"),
        (ID, b"caf\xe9"),
        (ID, "café".encode()),
        (ID, b"with spaces"),
        (ID, b"x" * 129),
        (ID, b""),
    ],
)
def test_what_serve_must_not_see(header: tuple[bytes, bytes]) -> None:
    kept = (b"x-weir-entity", "jörg".encode())
    assert harmless([kept, header]) == [kept]


def test_what_may_pass() -> None:
    headers = [(ID, b"a.b_c:d-1"), (b"traceparent", b"00-1-2-01"), (b"cookie", b"\xff")]
    assert harmless(headers) == headers


async def test_the_application_gets_the_rest() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.update(scope)

    (middleware,) = middlewares()
    assert middleware.cls is ClientHeaders
    headers = [(ID, b"\xff"), (b"host", b"x")]
    await ClientHeaders(app)({"type": "http", "headers": headers}, None, None)
    assert seen["headers"] == [(b"host", b"x")]
