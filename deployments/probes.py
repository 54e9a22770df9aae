"""What a replica says of itself over HTTP: ``/health`` and its engine's ``/metrics``."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.prometheus import get_prometheus_registry

from deployments.listener import answer

#: An engine answers between two steps. No step of a healthy one takes as long; Serve puts another
#: replica in the place of one that does not answer three times in a row.
_ANSWERS_WITHIN_S = 10.0


class EngineFrozenError(Exception):
    """The engine's process is there, and does nothing."""


async def refuse_if_frozen(client: AsyncLLM, within_s: float = _ANSWERS_WITHIN_S) -> None:
    """For the replica's health check.

    Raises:
        EngineFrozenError: the engine does not answer.
    """
    try:
        async with asyncio.timeout(within_s):
            await client.is_sleeping()
    except TimeoutError:
        raise EngineFrozenError(f"the engine has not answered for {within_s:g} s") from None


class Probes:
    """An ASGI application for the two paths; whoever routes to it has checked the path."""

    def __init__(self, client: AsyncLLM) -> None:
        self._client = client

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/metrics":
            figures = generate_latest(get_prometheus_registry())
            await answer(send, 200, figures, CONTENT_TYPE_LATEST.encode())
            return
        try:
            await self._client.check_health()
        except EngineDeadError:
            await answer(send, 503, b"the engine is down\n")
        else:
            await answer(send, 200, b"")
