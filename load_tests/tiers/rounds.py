"""Asking for the same prompts again and again, and what the engine had of them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from load_tests.loadgen import Target
from load_tests.report import percentile

_TIMEOUT = aiohttp.ClientTimeout(total=300)


@dataclass(frozen=True, slots=True)
class Answer:
    """``number``: which prompt. ``ttft_s``: until its first text. ``error``: empty if complete."""

    number: int
    text: str = ""
    ttft_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    error: str = ""


def shuffled(count: int, rounds: int, seed: int) -> list[int]:
    """Every prompt once a round, in another order each time."""
    rng = random.Random(seed)
    return [number for _ in range(rounds) for number in rng.sample(range(count), count)]


async def ask_all(
    target: Target, bodies: Sequence[bytes], order: Sequence[int], streams: int
) -> list[Answer]:
    """The prompts in that order, ``streams`` of them at a time."""
    left = iter(order)
    answers: list[Answer] = []
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:

        async def work() -> None:
            for number in left:
                answers.append(await _ask(http, target, bodies[number], number))

        await asyncio.gather(*(work() for _ in range(streams)))
    return answers


def figures(answers: Sequence[Answer], right: Mapping[int, str]) -> dict[str, Any]:
    """Hit rate, times to the first token, and how many answers are what they should be.
    ``right``: the text of each prompt's answer."""
    complete = [answer for answer in answers if not answer.error]
    asked = sum(answer.prompt_tokens for answer in complete)
    ttft_ms = [1000.0 * answer.ttft_s for answer in complete]
    same = sum(answer.text == right[answer.number] for answer in complete)
    return {
        "requests": len(answers),
        "hit_rate_ratio": sum(answer.cached_tokens for answer in complete) / asked
        if asked
        else 0.0,
        "ttft_p50_ms": percentile(ttft_ms, 50) if ttft_ms else None,
        "ttft_p99_ms": percentile(ttft_ms, 99) if ttft_ms else None,
        "answers_identical_ratio": same / len(complete) if complete else 0.0,
        "errors": len(answers) - len(complete),
    }


async def _ask(http: aiohttp.ClientSession, target: Target, body: bytes, number: int) -> Answer:
    url = f"http://{target.host}:{target.port}{target.path}"
    headers = {"Content-Type": "application/json", **dict(target.headers)}
    asked_s, first_s, text = time.monotonic(), 0.0, ""
    usage: dict[str, Any] = {}
    try:
        async with http.post(url, data=body, headers=headers) as response:
            if response.status != 200:
                return Answer(number, error=f"status {response.status}")
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    if piece := choice["delta"].get("content"):
                        first_s = first_s or time.monotonic()
                        text += piece
    except (aiohttp.ClientError, TimeoutError) as error:
        return Answer(number, error=repr(error))
    if not first_s or not usage:
        return Answer(number, error="broken off")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Answer(number, text, first_s - asked_s, usage["prompt_tokens"], cached)
