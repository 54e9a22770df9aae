"""The gateway's ASGI app: the request path on one side, everything else on the other."""

from __future__ import annotations

from typing import Any

from deployments.gateway.exchange import Exchange
from deployments.gateway.gateway import PATHS, Gateway


class GatewayApp:
    """ASGI: the request path goes straight to the gateway, the rest to the pages."""

    def __init__(self, gateway: Gateway, pages: Any) -> None:
        self._gateway = gateway
        self._pages = pages

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in PATHS:
            await self._gateway.serve(scope["path"], Exchange(scope, receive, send))
        else:
            await self._pages(scope, receive, send)
