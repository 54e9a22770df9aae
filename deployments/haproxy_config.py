"""HAProxy's configuration. Pure text.

Serve can generate a configuration too (``RAY_SERVE_ENABLE_HA_PROXY``). Its own lets any client set
headers that steer Serve, answers in HTML, never ends a connection on which no request arrives, and
listens for statistics and metrics on every interface (docs/adr/0020-front-door.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.client_headers import PLAIN_TEXT, REQUEST_ID, REQUEST_ID_PATTERN, STEERING
from deployments.haproxy_pages import STATUSES, page_file
from weir.settings.server import CorsSettings
from weir.settings.tree import ServerSettings

BACKEND = "gateways"
SLOTS = 32
"""Places for gateways; an empty one costs nothing. HAProxy cannot add any without a reload."""

_BUFFER_BYTES = 64 * 1024
# HAProxy refuses what fills its buffer with a page of its own, in HTML.
_MOST_HEADER_BYTES = 28 * 1024
_MOST_HEADERS = 1024
# Connections that the metrics' port, health checks and the admin socket may need beside clients'.
_SPARE_CONNECTIONS = 128
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_EXPOSED = "x-request-id, request-id, retry-after, x-should-retry, *"
_METRICS_PATHS = "/metrics /ready /health"


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

    server: ServerSettings
    folder: Path
    threads: int
    one_active: bool

    @property
    def socket(self) -> Path:
        return self.folder / "haproxy.sock"


def render(config: FrontDoorConfig, slots: Mapping[int, Target]) -> str:
    """``slots``: the gateways by slot, from 1 to :data:`SLOTS`."""
    return "\n".join(
        [
            *_global_section(config),
            *_defaults_section(config),
            *_clients(config),
            *_metrics(config),
            *_backend(config, slots),
            "",
        ]
    )


def _global_section(config: FrontDoorConfig) -> list[str]:
    return [
        "global",
        f"    stats socket {config.socket} mode 600 level admin",
        f"    nbthread {config.threads}",
        f"    maxconn {config.server.max_connections + _SPARE_CONNECTIONS}",
        "    no strict-limits",
        f"    tune.bufsize {_BUFFER_BYTES}",
        f"    tune.http.maxhdr {_MOST_HEADERS}",
        # A spliced connection is no longer watched, and a client that leaves is noticed only
        # when its answer is written.
        "    nosplice",
    ]


def _defaults_section(config: FrontDoorConfig) -> list[str]:
    return [
        "http-errors weir",
        *(f"    errorfile {status} {page_file(config.folder, status)}" for status in STATUSES),
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
        # For a client that has to send or to read something. One that waits for its answer has not.
        "    timeout client 90s",
        # Whoever waits, does so for as long as its class allows: the gateway has all time limits of
        # requests.
        "    timeout server 86400s",
        "    timeout http-request 10s",
        "    timeout http-keep-alive 120s",
        "    timeout queue 5s",
        "    timeout check 3s",
    ]


def _clients(config: FrontDoorConfig) -> list[str]:
    server = config.server
    too_long = page_file(config.folder, 431)
    # weir's own errors are JSON. What is plain text comes from Serve, or from its HTTP server; its
    # 404 means that it has no application now.
    plain = "{ res.hdr(content-type) -m beg text/plain }"
    return [
        "frontend clients",
        f"    bind {server.host}:{server.port}",
        f"    maxconn {server.max_connections}",
        "    stick-table type ipv6 size 64k expire 1m store conn_cur",
        "    tcp-request connection track-sc0 src",
        "    tcp-request connection reject if "
        f"{{ sc0_conn_cur gt {server.max_connections_per_source} }}",
        *_request_id(),
        *_cors(server.cors),
        f"    http-request return status 431 content-type application/json file {too_long} "
        f"if {{ req.hdrs_bin,length gt {_MOST_HEADER_BYTES} }}",
        "    http-request return status 404 errorfiles weir if { path,url_dec -m beg /-/ }",
        *_client_headers(),
        f"    http-response return status 503 errorfiles weir if {{ status 404 }} {plain}",
        *(
            f"    http-response return status {status} errorfiles weir "
            f"if {{ status {status} }} {plain}"
            for status in STATUSES
            if status != 404
        ),
        f"    default_backend {BACKEND}",
    ]


def _request_id() -> list[str]:
    """One id for each request: the gateway gets it and puts it into bodies and logs, the client
    finds it in the headers, those of HAProxy's own answers included."""
    given = f"req.fhdr({REQUEST_ID})"
    known = "{ var(txn.id) -m found }"
    return [
        f"    http-request set-var(txn.id) {given} if {{ {given} -m reg '{REQUEST_ID_PATTERN}' }}",
        f"    http-request set-var(txn.id) uuid unless {known}",
        f"    http-request set-header {REQUEST_ID} %[var(txn.id)]",
        f"    http-after-response set-header {REQUEST_ID} %[var(txn.id)] if {known}",
        # Where Anthropic's clients look for it.
        f"    http-after-response set-header request-id %[var(txn.id)] if {known}",
    ]


def _cors(cors: CorsSettings) -> list[str]:
    """Preflight requests are answered here, whatever their path; answers to a page that may call
    say so, errors and streams included."""
    if not cors.origins:
        return []
    origin, known = "req.fhdr(origin)", "{ var(txn.origin) -m found }"
    preflight, set_header = "{ var(txn.preflight) -m found }", "    http-after-response set-header "
    asked = "req.fhdr(access-control-request-headers)"
    headers = ", ".join(cors.headers) or "%[var(txn.asked)]"
    some = "" if cors.headers else " { var(txn.asked) -m found }"
    return [
        f"    http-request set-var(txn.origin) {origin} "
        f"if {{ {origin} -m reg '{origin_pattern(cors)}' }}",
        "    http-request set-var(txn.preflight) bool(true) "
        f"if METH_OPTIONS {known} {{ req.fhdr(access-control-request-method) -m found }}",
        f"    http-request set-var(txn.asked) {asked} "
        f"if {preflight} {{ {asked} -m reg '^[A-Za-z0-9_, -]+$' }}",
        # Chrome asks when a public page calls a machine of a private network.
        "    http-request set-var(txn.private) bool(true) "
        f"if {preflight} {{ req.fhdr(access-control-request-private-network) -m found }}",
        f"    http-request return status 204 if {preflight}",
        f"{set_header}access-control-allow-origin %[var(txn.origin)] if {known}",
        f"    http-after-response add-header vary Origin if {known}",
        f'{set_header}access-control-expose-headers "{_EXPOSED}" if {known} !{preflight}',
        f'{set_header}access-control-allow-methods "{_METHODS}" if {preflight}',
        f'{set_header}access-control-allow-headers "{headers}" if {preflight}{some}',
        f"{set_header}access-control-max-age {cors.max_age_s} if {preflight}",
        f"{set_header}access-control-allow-private-network true if {{ var(txn.private) -m found }}",
    ]


def origin_pattern(cors: CorsSettings) -> str:
    """The regular expression of the origins that may call."""
    patterns = []
    for origin in cors.origins:
        exact = re.escape(origin).replace(r":\*", "(:[0-9]+)?").replace(r"\*", "[a-z0-9.-]+")
        patterns.append(".*" if origin == "*" else exact)
    return f"^({'|'.join(patterns)})$"


def _client_headers() -> list[str]:
    steering = ("^" + name.replace("-", "[-_]") + "$" for name in STEERING)
    return [
        *(f"    http-request del-header {name} -m reg" for name in steering),
        *(
            f"    http-request del-header {name} if {{ req.fhdr({name}) -m reg [^\\x20-\\x7e] }}"
            for name in PLAIN_TEXT
        ),
    ]


def _metrics(config: FrontDoorConfig) -> list[str]:
    """A port for whoever reaches it: it asks the gateway with the platform's own token, which
    HAProxy takes from its environment."""
    metrics = config.server.metrics
    if metrics.port is None:
        return []
    return [
        "frontend metrics",
        f"    bind {metrics.host}:{metrics.port}",
        f"    http-request return status 404 errorfiles weir unless {{ path {_METRICS_PATHS} }}",
        *_client_headers(),
        f"    http-request del-header {REQUEST_ID}",
        '    http-request set-header authorization "Bearer ${WEIR_INTERNAL_TOKEN}"',
        f"    default_backend {BACKEND}",
    ]


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
