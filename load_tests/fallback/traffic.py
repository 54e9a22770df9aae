"""Requests to the running platform, and what became of each."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from weir import samples

MAX_TOKENS = 64


@dataclass(slots=True)
class Outcome:
    """One request. Times are monotonic seconds; ``due_s`` is when it should have been sent.
    ``begun``: some of the answer had come. ``error``: empty for a whole answer."""

    example: samples.Example
    priority: str
    due_s: float
    first_s: float | None = None
    end_s: float = 0.0
    status: int = 0
    error: str = ""
    model: str = ""
    spill: str = ""
    text: str = ""
    logprobs: list[float] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return self.first_s is not None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def right(self) -> bool:
        return not self.error and samples.check(self.example, self.text)


def examples(seed: int) -> Iterator[samples.Example]:
    """Held-out requests of all intents in turn, without end."""
    for batch in itertools.count():
        yield from samples.requests(seed + batch, 400, zipf=1.0)


class Client:
    """Asks one gateway as one tenant."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._key = key

    async def ask(
        self,
        example: samples.Example,
        model: str,
        *,
        due_s: float | None = None,
        priority: str = "interactive",
        stream: bool = True,
        logprobs: bool = False,
    ) -> Outcome:
        """Never raises: what went wrong is in the outcome."""
        outcome = Outcome(example, priority, time.monotonic() if due_s is None else due_s)
        body: dict[str, Any] = {
            "model": model,
            "messages": example.messages,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": stream,
        }
        if logprobs:
            body["logprobs"] = True
        headers = {"authorization": f"Bearer {self._key}", "x-weir-priority": priority}
        try:
            async with self._session.post(self._url, json=body, headers=headers) as response:
                outcome.status = response.status
                outcome.model = response.headers.get("x-weir-model-answered", "")
                outcome.spill = response.headers.get("x-weir-spill", "")
                await (_read_events if stream else _read_whole)(response, outcome)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            outcome.error = type(error).__name__
        outcome.end_s = time.monotonic()
        return outcome


async def _read_whole(response: aiohttp.ClientResponse, outcome: Outcome) -> None:
    answer = orjson.loads(await response.read())
    if "error" in answer:
        outcome.error = str(answer["error"].get("code"))
        return
    outcome.first_s = time.monotonic()
    choice = answer["choices"][0]
    outcome.text = choice["message"]["content"] or ""
    if choice.get("logprobs"):
        outcome.logprobs = [float(one["logprob"]) for one in choice["logprobs"]["content"]]


async def _read_events(response: aiohttp.ClientResponse, outcome: Outcome) -> None:
    if response.status != 200:
        await _read_whole(response, outcome)
        return
    raw = b""
    async for part in response.content.iter_any():
        if outcome.first_s is None:
            outcome.first_s = time.monotonic()
        raw += part
    texts = []
    for line in raw.split(b"\n\n"):
        if not line.startswith(b"data: {"):
            continue
        event = orjson.loads(line[6:])
        if "error" in event:
            outcome.error = str(event["error"].get("code"))
            return
        texts.append(event["choices"][0]["delta"].get("content") or "")
    outcome.text = "".join(texts)
    if b"[DONE]" not in raw:
        outcome.error = "cut off"


async def closed_loop(
    ask: Callable[[samples.Example], Any],
    source: Iterator[samples.Example],
    clients: int,
    seconds: float,
) -> list[Outcome]:
    """``clients`` that each ask again as soon as they are answered."""
    end_s = time.monotonic() + seconds
    found: list[Outcome] = []

    async def client() -> None:
        while time.monotonic() < end_s:
            found.append(await ask(next(source)))

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


@dataclass(frozen=True, slots=True)
class Flow:
    """Poisson arrivals of one class."""

    priority: str
    per_s: float


async def open_loop(
    ask: Callable[[samples.Example, str, float, bool], Any],
    source: Iterator[samples.Example],
    flows: Sequence[Flow],
    seconds: float,
    rng: random.Random,
    plain_share: float = 0.0,
) -> list[Outcome]:
    """Requests that come whether or not earlier ones were answered; waits for all answers.
    ``plain_share`` of them do not stream."""
    arrivals = []
    for flow in flows:
        at_s = rng.expovariate(flow.per_s)
        while at_s < seconds:
            arrivals.append((at_s, flow.priority))
            at_s += rng.expovariate(flow.per_s)
    began_s = time.monotonic()
    tasks = []
    for at_s, priority in sorted(arrivals):
        await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
        stream = rng.random() >= plain_share
        tasks.append(asyncio.ensure_future(ask(next(source), priority, began_s + at_s, stream)))
    return list(await asyncio.gather(*tasks))
