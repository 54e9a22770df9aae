"""Every error renders as OpenAI's error object, with the right status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from weir import errors
from weir.errors import BadRequestError, NoReplicaError, RateLimitError, WeirError


def classes(base: type[WeirError] = WeirError) -> Iterator[type[WeirError]]:
    yield base
    for below in base.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from classes(below)


@pytest.mark.parametrize("kind", sorted(set(classes()), key=lambda c: c.__name__))
def test_every_class_renders_as_openais_error(kind: type[WeirError]) -> None:
    error = kind("what is wrong", param="messages[0]")
    assert errors.error_body(error) == {
        "error": {
            "message": "what is wrong",
            "type": kind.type,
            "param": "messages[0]",
            "code": kind.code,
        }
    }
    assert 400 <= kind.status <= 599
    assert kind.code
    assert str(error) == "what is wrong"


@pytest.mark.parametrize("kind", sorted(set(classes()), key=lambda c: c.__name__))
def test_only_what_can_be_retried_says_when(kind: type[WeirError]) -> None:
    headers = errors.error_headers(kind("x", retry_after_s=7.4))
    forbidden = {"x-should-retry": "false"} if kind.hopeless else {}
    assert (headers.pop("www-authenticate", None) is None) == (kind.status != 401)
    assert headers == ({"retry-after": "7"} if kind.retryable else forbidden)
    assert not (kind.retryable and kind.hopeless)


def test_client_errors_are_no_server_errors() -> None:
    for kind in classes():
        assert (kind.type == "server_error") <= (kind.status >= 500)


@pytest.mark.parametrize(("seconds", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (2.6, "3")])
def test_retry_after_is_whole_seconds_and_never_zero(seconds: float | None, header: str) -> None:
    error = RateLimitError("slow down", retry_after_s=seconds)
    assert errors.error_headers(error) == {"retry-after": header}


def test_codes_differ_where_clients_must_tell_them_apart() -> None:
    codes = {kind.code for kind in classes(BadRequestError)}
    assert codes == {
        "invalid_value",
        "context_length_exceeded",
        "unsupported_operation",
        "previous_response_not_found",
    }
    assert NoReplicaError.status == 503
