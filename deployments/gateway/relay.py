"""Requests that need vLLM's own OpenAI server: tools, grammars, log-probabilities, embeddings.

The body goes to the replica's listener and the answer comes back as it is; only token counts are
read from it, and errors are put into weir's shape.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson
from pydantic import BaseModel

from deployments import wire
from deployments.gateway.answers import Counts
from deployments.gateway.exchange import Exchange
from weir.errors import BadRequestError, OverloadedError, ReplicaFailedError, WeirError


class OpenAIRelay:
    """HTTP to the replicas' own OpenAI servers."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self._session = session
        self._token = token

    async def relay(
        self,
        exchange: Exchange,
        address: str,
        path: str,
        body: BaseModel,
        engine_fields: Mapping[str, Any],
    ) -> None:
        """Post ``body`` to ``path`` of the replica at ``address`` and pass the answer on.

        ``engine_fields`` are vLLM's own, which clients may not set: priority and cache salt.

        Raises:
            WeirError: the replica refused, failed, or could not be reached.
        """
        payload = body.model_dump(mode="json", exclude_unset=True, by_alias=True)
        payload |= engine_fields
        wants_usage = _ask_for_usage(payload)
        headers = {
            wire.TOKEN_HEADER: self._token,
            "x-request-id": exchange.request_id,
            "content-type": "application/json",
        }
        try:
            async with self._session.post(
                f"http://{address}{path}", data=orjson.dumps(payload), headers=headers
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                if payload.get("stream"):
                    await _pass_events(exchange, response, wants_usage)
                else:
                    await _pass_whole(exchange, response)
        except (aiohttp.ClientError, OSError) as error:
            raise ReplicaFailedError(f"The replica failed during the request: {error}") from error


def _ask_for_usage(payload: dict[str, Any]) -> bool:
    # The counts settle the bill, so they are always asked for; whether the client sees them is
    # its own choice.
    if not payload.get("stream"):
        return True
    options = payload.setdefault("stream_options", {}) or {}
    wanted = bool(options.get("include_usage"))
    payload["stream_options"] = {**options, "include_usage": True}
    return wanted


async def _pass_whole(exchange: Exchange, response: aiohttp.ClientResponse) -> None:
    body = await response.read()
    exchange.output_arrived()
    usage = orjson.loads(body).get("usage")
    exchange.counts = _counts(usage)
    await exchange.answer(200, body)


async def _pass_events(
    exchange: Exchange, response: aiohttp.ClientResponse, wants_usage: bool
) -> None:
    await exchange.begin_stream()
    async for event in _events(response):
        exchange.output_arrived()
        if b'"usage":{' in event:
            data = orjson.loads(event.removeprefix(b"data: "))
            exchange.counts = _counts(data.get("usage")) if data.get("usage") else exchange.counts
            if not data.get("choices") and not wants_usage:
                continue
        await exchange.send_event(event + b"\n\n")
    await exchange.end_stream(b"")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    pending = b""
    async for data in response.content.iter_any():
        *events, pending = (pending + data).split(b"\n\n")
        for event in events:
            yield event
    if pending.strip():
        yield pending


def _counts(usage: dict[str, Any] | None) -> Counts:
    usage = usage or {}
    details = usage.get("prompt_tokens_details") or {}
    return Counts(
        usage.get("prompt_tokens") or 0,
        details.get("cached_tokens") or 0,
        usage.get("completion_tokens") or 0,
    )


def _error(status: int, body: bytes) -> WeirError:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = {}
    detail = said.get("error", said) if isinstance(said, dict) else {}
    message = str(detail.get("message") or body[:500].decode("utf-8", "replace"))
    if status in (429, 503):
        return OverloadedError(message)
    if status < 500:
        param = detail.get("param")
        return BadRequestError(message, param=param if isinstance(param, str) else None)
    return ReplicaFailedError(f"The replica answered {status}: {message}")
