"""The API, fuzzed from its own OpenAPI description: no server error, answers as described."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.e2e

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_COUNT = "/v1/messages/count_tokens"
_RESPONSES = "/v1/responses"
_KEPT = "/v1/responses/{response_id}"
_POSTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    _COUNT,
    _RESPONSES,
    f"{_KEPT}/cancel",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
    "/v1/files",
    "/v1/batches",
    "/v1/batches/{batch_id}/cancel",
    "/v1/messages/batches",
    "/v1/messages/batches/{batch_id}/cancel",
)
_GETS = (
    "/health",
    "/ready",
    "/metrics",
    "/metrics/gateway",
    "/metrics/part",
    "/v1/models",
    "/v1/models/{model}",
    _KEPT,
    f"{_KEPT}/input_items",
    "/v1/files/{file_id}",
    "/v1/files/{file_id}/content",
    "/v1/batches/{batch_id}",
    "/v1/messages/batches/{batch_id}",
    "/v1/messages/batches/{batch_id}/results",
)


def _mend(body: Any, model: str, path: str) -> None:
    """Half of the requests name a model that answers, and none asks for a long answer."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and len(body) % 2:
        body["model"] = model
        if path != _COUNT:
            body.setdefault("max_output_tokens" if path == _RESPONSES else "max_tokens", 4)
    for field in ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "n"):
        if isinstance(body.get(field), int) and body[field] > 4:
            body[field] = 4


@pytest.fixture(scope="module")
def api(platform: Any) -> Any:
    """The description that the gateway itself serves."""
    return schemathesis.openapi.from_url(f"{platform.url}/openapi.json")


@pytest.mark.parametrize("path", [*_POSTS, *_GETS])
def test_no_input_breaks_the_api(path: str, api: Any, platform: Any) -> None:
    operation = api[path]["POST" if path in _POSTS else "GET"]

    @settings(
        max_examples=40 if path in _POSTS else 5,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=operation.as_strategy())
    def no_input_breaks_it(case: Any) -> None:
        _mend(case.body, platform.model, path)
        headers = {"Authorization": f"Bearer {platform.key}"}
        case.call_and_validate(checks=_CHECKS, headers=headers, timeout=60)

    no_input_breaks_it()


def test_every_operation_is_fuzzed(api: Any) -> None:
    assert set(api.raw_schema["paths"]) == {*_POSTS, *_GETS}
