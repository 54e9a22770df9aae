"""Streams whose every token is counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

_TIMEOUT_S = 280.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One answer. ``tokens``: as the usage at its end says; ``gap_s``: the longest time without
    anything; ``error``: empty for one that ended well."""

    tokens: int
    first_s: float
    gap_s: float
    whole_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. ``number`` makes the prompt another one."""

    model: str
    tokens: int
    number: int

    def body(self) -> dict[str, Any]:
        """Of a chat request."""
        content = f"Number {self.number}: tell me everything about my order."
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class Streams:
    """Answers under way. ``begun``: how many have had a first token."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=400)
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_TIMEOUT_S, limits=limits
        )
        self.begun = 0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def one(self, asked: Asked) -> Ended:
        """An answer, to its end."""
        began = last = time.monotonic()
        first_s = gap_s = 0.0
        tokens, finished, error = 0, "", ""
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json=asked.body()
            ) as answer:
                if answer.status_code != 200:
                    text = (await answer.aread()).decode()[:200]
                    return Ended(0, 0.0, 0.0, time.monotonic() - began, text)
                async for line in answer.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    told, now = json.loads(line[6:]), time.monotonic()
                    if "error" in told:
                        error = str(told["error"])[:200]
                    if not first_s:
                        first_s = now - began
                        self.begun += 1
                    else:
                        gap_s = max(gap_s, now - last)
                    last = now
                    for choice in told.get("choices") or ():
                        finished = choice.get("finish_reason") or finished
                    if told.get("usage"):
                        tokens = told["usage"]["completion_tokens"]
        except httpx.HTTPError as failed:
            error = repr(failed)[:200]
        if not error and (finished != "length" or tokens != asked.tokens):
            error = f"{tokens} of {asked.tokens} tokens, finished: {finished or 'never'}"
        return Ended(tokens, first_s, gap_s, time.monotonic() - began, error)

    async def load(self, model: str, tokens: int, clients: int, stop: asyncio.Event) -> list[Ended]:
        """So many clients, each asking as soon as it has its answer, until ``stop``."""
        ended: list[Ended] = []

        async def client(number: int) -> None:
            while not stop.is_set():
                ended.append(await self.one(Asked(model, tokens, number + 1000 * len(ended))))

        await asyncio.gather(*(client(number) for number in range(clients)))
        return ended


def failed(ended: Sequence[Ended]) -> list[str]:
    """What went wrong, of those that did not end well."""
    return [each.error for each in ended if each.error]
