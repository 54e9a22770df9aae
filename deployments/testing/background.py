"""A response that runs without its client, as its client sees it."""

from __future__ import annotations

import asyncio
import json

from deployments.gateway.responses import Responses
from deployments.testing.exchange import Exchange
from weir.tenancy import Tenant

_POLL_S = 0.02


class BackgroundExchange(Exchange):
    """Asked for until it has ended; then ``raw`` is the response. Leaving cancels it."""

    def __init__(self, responses: Responses, told: Exchange, key: str) -> None:
        super().__init__()
        self._responses = responses
        self._told = told
        self._key = key

    def ask(self) -> Exchange:
        """The request is on its way."""
        return self.begin(self._follow())

    async def leave(self) -> None:
        told = await self._told.done()
        if told.status == 200 and not self.ended:
            await self._responses.cancel(self._tenant(), _id_of(told))
        assert self._work is not None
        await asyncio.wait([self._work])

    async def _follow(self) -> None:
        told = await self._told.done()
        self.status, self.headers, self.raw = told.status, told.headers, bytearray(told.raw)
        if told.status != 200:
            return
        response_id = _id_of(told)
        while (stored := await self._responses.find(self._tenant(), response_id)).open:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        self.raw = bytearray(json.dumps(stored.response).encode())

    def _tenant(self) -> Tenant:
        return self._responses.gateway.directory.authenticate(f"Bearer {self._key}").tenant


def _id_of(told: Exchange) -> str:
    return str(json.loads(told.raw)["id"])
