"""The gateway's ASGI app: the request path on one side, everything else on the other."""

from __future__ import annotations

from typing import Any

from deployments.gateway.exchange import Exchange
from deployments.gateway.gateway import PATHS, Gateway
from weir.errors import MethodNotAllowedError


class GatewayApp:
    """ASGI: the request path goes straight to the gateway, the rest to the pages."""

    def __init__(self, gateway: Gateway, pages: Any) -> None:
        self._gateway = gateway
        self._pages = pages

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self._pages(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        if scope["method"] == "POST":
            await self._gateway.serve(scope["path"], exchange)
        else:
            exchange.headers.append((b"allow", b"POST"))
            path, method = scope["path"], scope["method"]
            await exchange.fail(MethodNotAllowedError(f"{method} is not allowed on {path}."))
