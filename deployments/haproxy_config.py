"""HAProxy's configuration, and the answers that it gives itself. Pure text.

Serve can generate a configuration too (``RAY_SERVE_ENABLE_HA_PROXY``). Its own lets any client set
headers that steer Serve, answers in HTML, never ends a connection on which no request arrives, and
listens for statistics and metrics on every interface (docs/adr/0020-front-door.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

BACKEND = "gateways"
SLOTS = 32
"""Places for gateways; an empty one costs nothing. HAProxy cannot add any without a reload."""

_RETRY_AFTER_S = 1
_WORDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request is not valid HTTP, or its headers are too long."),
    404: ("invalid_request_error", "There is nothing at this path."),
    408: ("invalid_request_error", "The request did not arrive in time."),
    500: ("server_error", "The gateway failed while it answered this request."),
    502: ("server_error", "The gateway ended before it had answered. The request may be retried."),
    503: ("overloaded_error", "No gateway is ready. Retry shortly."),
    504: ("server_error", "The gateway did not answer in time."),
}
_CODES = {
    400: "invalid_value",
    404: "not_found",
    408: "request_timeout",
    500: "internal_error",
    502: "gateway_failed",
    503: "overloaded",
    504: "gateway_timeout",
}
_RETRYABLE = (408, 500, 502, 503)
# A request that took so long would take as long again. OpenAI's and Anthropic's clients obey this.
_HOPELESS = (504,)
# Serve reads these and decodes their values strictly: bytes that are not UTF-8 are its error 500.
_PLAIN_TEXT_HEADERS = ("x-request-id", "x-session-id", "traceparent", "tracestate", "baggage")
# Serve obeys these: no cancelling when the client leaves, a time limit, a model to load.
_STEERING_HEADERS = (
    "^x-request-disconnect-disabled$",
    "^x-request-timeout-seconds$",
    "^serve[-_]multiplexed[-_]model[-_]id$",
)


@dataclass(frozen=True, slots=True)
class Target:
    """One gateway: its name in Serve, and where its HTTP server listens."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FrontDoorConfig:
    """``folder`` gets the admin socket and the error files.

    ``one_active``: all new requests go to the first gateway that is up, in the order of slots; the
    others take over when it fails. Else requests go where the fewest are.
    """

    host: str
    port: int
    folder: Path
    threads: int
    one_active: bool

    @property
    def socket(self) -> Path:
        return self.folder / "haproxy.sock"


def error_pages() -> dict[int, str]:
    """Whole HTTP responses by status, in the shape of all of weir's errors."""
    pages = {}
    for status, (kind, message) in _WORDS.items():
        error = {"message": message, "type": kind, "param": None, "code": _CODES[status]}
        body = json.dumps({"error": error})
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "cache-control: no-store",
        ]
        if status in _RETRYABLE:
            head.append(f"retry-after: {_RETRY_AFTER_S}")
        if status in _HOPELESS:
            head.append("x-should-retry: false")
        pages[status] = "\r\n".join([*head, "", body])
    return pages


def error_file(folder: Path, status: int) -> Path:
    """Where the response of that status lies."""
    return folder / f"{status}.http"


def render(config: FrontDoorConfig, slots: Mapping[int, Target]) -> str:
    """``slots``: the gateways by slot, from 1 to :data:`SLOTS`."""
    return "\n".join(
        [
            *_global_section(config),
            *_defaults_section(config),
            *_frontend(config),
            *_backend(config, slots),
            "",
        ]
    )


def _global_section(config: FrontDoorConfig) -> list[str]:
    return [
        "global",
        f"    stats socket {config.socket} mode 600 level admin",
        f"    nbthread {config.threads}",
        "    maxconn 4096",
        "    no strict-limits",
        # A spliced connection is no longer watched, and a client that leaves is noticed only
        # when its answer is written.
        "    nosplice",
    ]


def _defaults_section(config: FrontDoorConfig) -> list[str]:
    return [
        "http-errors weir",
        *(f"    errorfile {status} {error_file(config.folder, status)}" for status in _WORDS),
        "defaults",
        "    mode http",
        "    option abortonclose",
        "    option http-no-delay",
        "    option http-ignore-probes",
        "    option idle-close-on-response",
        "    errorfiles weir",
        # Only what was never sent is sent again, and then to another gateway.
        "    retry-on conn-failure",
        "    retries 3",
        "    option redispatch 1",
        # Also how long a refused connection waits before it is tried elsewhere.
        "    timeout connect 500ms",
        # Whoever waits, does so for as long as its class allows, and a client that leaves is
        # noticed all the same: the gateway has all time limits of requests.
        "    timeout client 86400s",
        "    timeout server 86400s",
        "    timeout http-request 10s",
        "    timeout http-keep-alive 120s",
        "    timeout queue 5s",
        "    timeout check 3s",
    ]


def _frontend(config: FrontDoorConfig) -> list[str]:
    rules = ["frontend clients", f"    bind {config.host}:{config.port}"]
    rules += [f"    http-request del-header {name} -m reg" for name in _STEERING_HEADERS]
    rules += [
        f"    http-request del-header {name} if {{ req.fhdr({name}) -m reg [^\\x20-\\x7e] }}"
        for name in _PLAIN_TEXT_HEADERS
    ]
    # weir's own errors are JSON. What is plain text comes from Serve, or from its HTTP server.
    plain = "{ res.hdr(content-type) -m beg text/plain }"
    rules += [
        f"    http-response return status {status} errorfiles weir if {{ status {status} }} {plain}"
        for status in _WORDS
    ]
    return [*rules, f"    default_backend {BACKEND}"]


def _backend(config: FrontDoorConfig, slots: Mapping[int, Target]) -> list[str]:
    # A gateway that is gone refuses connections, which is seen at the first one. One that is busy
    # with a large body answers late, and is left three checks to do so.
    checks = "check inter 2s fastinter 1s downinter 250ms rise 1 fall 3"
    observed = "observe layer4 error-limit 1 on-error mark-down"
    lines = [
        f"backend {BACKEND}",
        f"    balance {'first' if config.one_active else 'leastconn'}",
        "    http-reuse always",
        "    option httpchk GET /-/healthz",
        "    http-check expect status 200",
        f"    default-server {checks} {observed}",
    ]
    for number in range(1, SLOTS + 1):
        target = slots.get(number)
        where = f"{target.host}:{target.port}" if target else "127.0.0.1:1"
        state = "" if target else " disabled"
        lines.append(f"    server {slot_name(number)} {where} id {number}{state}")
    return lines


def slot_name(number: int) -> str:
    """What HAProxy calls a slot."""
    return f"slot{number}"


def assign_slots(held: Mapping[int, Target], targets: list[Target]) -> dict[int, Target]:
    """Who is in which slot next. A gateway keeps its slot as long as it is there; a new one comes
    after all others while there is room, so that it becomes active last."""
    wanted = {target.name: target for target in targets}
    slots = {n: wanted.pop(t.name) for n, t in held.items() if t.name in wanted}
    for target in wanted.values():
        after = max(slots, default=0) + 1
        free = (n for n in range(1, SLOTS + 1) if n not in slots)
        number = after if after <= SLOTS else next(free, None)
        if number is None:
            break  # as many gateways as HAProxy has slots for
        slots[number] = target
    return slots
