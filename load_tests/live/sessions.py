"""Conversations in a closed loop: each turn repeats the conversation so far and adds to it.

That is the workload where it matters which replica gets a turn: the replica that served the last
one holds its whole prefix, any other must prefill it again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from load_tests.loadgen import Target, prompt_texts


@dataclass(frozen=True, slots=True)
class Plan:
    """``sessions`` run at once; each starts anew after ``turns`` turns. Token counts are of the
    prompts' own text; ``think_s`` is the mean pause (exponential) between turns."""

    sessions: int = 32
    stores: int = 4
    turns: int = 8
    system_tokens: int = 160
    user_tokens: int = 60
    output_tokens: int = 24
    think_s: float = 0.4


@dataclass(frozen=True, slots=True)
class Turn:
    """One answered turn; times in seconds on the monotonic clock."""

    sent_s: float
    first_s: float
    done_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(slots=True)
class Outcome:
    """The turns that ended within the window, and what went wrong."""

    window_s: float
    turns: list[Turn] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Texts:
    """Seeded texts: every store's system prompt, and what users say, never the same twice."""

    def __init__(self, plan: Plan, seed: int, count_tokens: Callable[[str], int]) -> None:
        self.systems = prompt_texts(seed, plan.stores, plan.system_tokens, count_tokens)
        self._users = prompt_texts(seed + 1, 400, plan.user_tokens, count_tokens)
        self._next = 0

    def user(self) -> str:
        """The next thing a user says."""
        self._next += 1
        return f"{self._next} {self._users[self._next % len(self._users)]}"


async def converse(
    target: Target,
    model: str,
    plan: Plan,
    texts: Texts,
    seed: int,
    warmup_s: float,
    window_s: float,
) -> Outcome:
    """Run all sessions; only turns that end within the window count."""
    start_s = time.monotonic() + warmup_s
    outcome = Outcome(window_s)
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        run = _Run(http, target, model, plan, texts, outcome, start_s)
        sessions = [
            asyncio.create_task(run.session(random.Random(seed * 1009 + number), number))
            for number in range(plan.sessions)
        ]
        await asyncio.sleep(warmup_s + window_s)
        run.stop()
        await asyncio.wait(sessions, timeout=30)
        for task in sessions:
            task.cancel()
        for result in await asyncio.gather(*sessions, return_exceptions=True):
            if isinstance(result, Exception):
                outcome.faults.append(f"{type(result).__name__}: {result}")
    return outcome


class _Run:
    def __init__(
        self,
        http: aiohttp.ClientSession,
        target: Target,
        model: str,
        plan: Plan,
        texts: Texts,
        outcome: Outcome,
        start_s: float,
    ) -> None:
        self._http = http
        self._url = f"http://{target.host}:{target.port}{target.path}"
        self._headers = dict(target.headers)
        self._model = model
        self._plan = plan
        self._texts = texts
        self._outcome = outcome
        self._start_s = start_s
        self._over = asyncio.Event()

    def stop(self) -> None:
        """No further turns."""
        self._over.set()

    async def session(self, rng: random.Random, number: int) -> None:
        """One user after the other."""
        plan = self._plan
        # Sessions are in mid-conversation when the load begins, not all at their first turn.
        left = 1 + number % plan.turns
        while not self._over.is_set():
            messages = [{"role": "system", "content": rng.choice(self._texts.systems)}]
            for _ in range(left):
                if self._over.is_set():
                    return
                await asyncio.sleep(rng.expovariate(1 / plan.think_s))
                messages.append({"role": "user", "content": self._texts.user()})
                answer = await self._turn(messages)
                if answer is None:
                    break
                messages.append({"role": "assistant", "content": answer})
            left = plan.turns

    async def _turn(self, messages: Sequence[dict[str, str]]) -> str | None:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": self._plan.output_tokens,
            "min_tokens": self._plan.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        sent_s = time.monotonic()
        async with self._http.post(self._url, json=body, headers=self._headers) as response:
            if response.status != 200:
                self._outcome.faults.append(f"{response.status}: {(await response.text())[:200]}")
                await asyncio.sleep(0.2)
                return None
            return await self._read(response, sent_s)

    async def _read(self, response: aiohttp.ClientResponse, sent_s: float) -> str:
        text, first_s = "", 0.0
        usage: dict[str, Any] = {}
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event: dict[str, Any] = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event.get("choices", ()):
                if piece := choice["delta"].get("content"):
                    first_s = first_s or time.monotonic()
                    text += piece
        done_s = time.monotonic()
        if self._start_s <= done_s <= self._start_s + self._outcome.window_s:
            details = usage.get("prompt_tokens_details") or {}
            self._outcome.turns.append(
                Turn(
                    sent_s,
                    first_s or done_s,
                    done_s,
                    usage.get("prompt_tokens", 0),
                    details.get("cached_tokens") or 0,
                    usage.get("completion_tokens", 0),
                )
            )
        return text
