"""Refusals of pages and of the admin API cost their sender time, as the request path's do."""

from __future__ import annotations

from typing import Any

from deployments.gateway import http
from deployments.gateway.refusals import Refusals
from deployments.gateway.request import HttpDoor
from weir.errors import WeirError
from weir.tenancy import LiveDirectory

_BEGINS = "http.response.start"
#: Whose answers to callers with a key that is no tenant's, but the admin API's, are counted
#: together. No tenant has this id.
_OTHERS = "*"


class Paced:
    """Answers with a status of 400 to 499 wait where their tenant is refused too often."""

    def __init__(self, refusals: Refusals, directory: LiveDirectory) -> None:
        self._refusals = refusals
        self._directory = directory

    async def __call__(self, app: Any, scope: http.Scope, receive: Any, send: Any) -> None:
        """ASGI, around ``app``."""

        async def paced(event: dict[str, Any]) -> None:
            if event["type"] == _BEGINS and 400 <= event["status"] < 500:
                door = HttpDoor(scope, receive)
                await self._refusals.pause_for(self._tenant(door, event["status"]), door.discard)
            await send(event)

        await app(scope, receive, paced)

    def _tenant(self, door: HttpDoor, status: int) -> str:
        try:
            given = door.header(b"authorization"), door.header(b"x-api-key")
            return self._directory.authenticate(*given).tenant.id
        except WeirError:
            return "" if status == 401 else _OTHERS
