"""The answers that HAProxy gives itself. Pure text.

HAProxy does not know which client asks, so its errors have the shape of both: for OpenAI's clients
``error`` has ``message``, ``type``, ``param`` and ``code``; for Anthropic's the body has the type
``error``, and ``error`` one of their types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

_RETRY_AFTER_S = 1
_WORDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request is not valid HTTP."),
    404: ("not_found_error", "There is nothing at this path."),
    408: ("invalid_request_error", "The request did not arrive in time."),
    431: ("invalid_request_error", "The request's headers are too long."),
    500: ("api_error", "The gateway failed while it answered this request."),
    502: ("api_error", "The gateway ended before it had answered. The request may be retried."),
    503: ("overloaded_error", "No gateway is ready. Retry shortly."),
    504: ("api_error", "The gateway did not answer in time."),
}
_CODES = {
    400: "invalid_value",
    404: "not_found",
    408: "request_timeout",
    431: "headers_too_large",
    500: "internal_error",
    502: "gateway_failed",
    503: "overloaded",
    504: "gateway_timeout",
}
_RETRYABLE = (408, 500, 502, 503)
#: Statuses whose whole answer can be replaced; HAProxy knows no error file for the others.
STATUSES = tuple(status for status in _WORDS if status != 431)


def error_body(status: int) -> str:
    """The JSON of an error."""
    kind, message = _WORDS[status]
    error = {"message": message, "type": kind, "param": None, "code": _CODES[status]}
    return json.dumps({"type": "error", "error": error})


def error_pages() -> dict[int, str]:
    """Whole HTTP responses by status. A gateway that did not answer in time would not do so in a
    second either: clients that would repeat the request are told not to."""
    pages = {}
    for status in STATUSES:
        body = error_body(status)
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "cache-control: no-store",
        ]
        if status in _RETRYABLE:
            head.append(f"retry-after: {_RETRY_AFTER_S}")
        if status == 504:
            head.append("x-should-retry: false")
        pages[status] = "\r\n".join([*head, "", body])
    return pages


def page_file(folder: Path, status: int) -> Path:
    """Where the page of a status lies: a whole response, or a body for :data:`STATUSES`' rest."""
    return folder / (f"{status}.http" if status in STATUSES else f"{status}.json")


def write_pages(folder: Path) -> None:
    """Write all of them."""
    for status, page in error_pages().items():
        page_file(folder, status).write_text(page, newline="")
    page_file(folder, 431).write_text(error_body(431))
