"""What a replica says of itself over HTTP: ``/health`` and its engine's ``/metrics``."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.prometheus import get_prometheus_registry

from deployments.listener import answer


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
