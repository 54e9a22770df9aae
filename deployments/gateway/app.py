"""The gateway's ASGI app: the request path on one side, everything else on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployments.gateway import http
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.dialects.responses import ResponsesDialect
from deployments.gateway.forwarding import ControlDoor
from deployments.gateway.handle import Gateway
from deployments.gateway.metrics_page import PATHS
from deployments.gateway.pacing import Paced
from deployments.gateway.request import HttpDoor
from deployments.gateway.responses import Responses
from deployments.gateway.sink import HttpSink
from weir.errors import MethodNotAllowedError

#: Asked of every gateway, also of one that stands by.
_PROBES = frozenset({"/health", "/ready", *PATHS})
#: As whose the refusals of the admin API's callers count; no tenant has this id.
_ADMINS = "*"


@dataclass(slots=True)
class Traffic:
    """How many requests clients have sent."""

    requests: int = 0


class GatewayApp:
    """ASGI: what a dialect speaks goes straight to the gateway, the rest to the pages.
    ``responses`` stands in front of the gateway for the one dialect whose answers are kept, and
    forgotten by a page of the same path. ``traffic`` counts the requests. ``control`` takes the
    admin and tenant API, unless that has a port of its own."""

    def __init__(
        self,
        gateway: Gateway,
        responses: Responses,
        pages: Any,
        traffic: Traffic | None = None,
        control: ControlDoor | None = None,
    ) -> None:
        self._traffic = traffic or Traffic()
        self._gateway = gateway
        self._responses = responses
        self._pages = Paced(pages, gateway.refusals, gateway.directory)
        self._control = (
            None
            if control is None
            else Paced(control, gateway.refusals, gateway.directory, others=_ADMINS)
        )

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        if scope["path"] not in _PROBES:
            self._traffic.requests += 1
        dialect = DIALECTS.find(scope["path"])
        if dialect is None:
            scope = as_page(scope)
            dialect = DIALECTS.find(scope["path"])
        kept = isinstance(dialect, ResponsesDialect)
        if dialect is None and self._control is not None and ControlDoor.leads(scope["path"]):
            await self._control(scope, receive, send)
        elif dialect is None or (kept and scope["method"] == "DELETE"):
            await self._pages(scope, receive, send)
        elif scope["method"] == "POST" and kept:
            await self._responses.create(scope, receive, send)
        elif scope["method"] == "POST":
            await self._gateway.handle(dialect, HttpDoor(scope, receive), HttpSink(send, dialect))
        else:
            method, path = scope["method"], scope["path"]
            error = MethodNotAllowedError(f"{method} is not allowed on {path}.")
            error.request_id = http.request_id(scope)
            allowed = b"POST, DELETE" if kept else b"POST"
            await http.send_error(send, error, dialect.error_body(error), [(b"allow", allowed)])


def as_page(scope: dict[str, Any]) -> dict[str, Any]:
    """The request for the page that is meant: without slashes that are empty or at the end, and
    with GET for HEAD. The server that called leaves out the body of an answer to HEAD."""
    parts = [part for part in scope["path"].split("/") if part]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "path": "/" + "/".join(parts), "method": method}
