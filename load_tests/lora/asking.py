"""Asking for answers with and without adapters, and what came of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from load_tests.loadgen import Target

_TIMEOUT = aiohttp.ClientTimeout(total=300)
_LOADS = re.compile(r"^weir_adapter_loads\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: ``model`` is the model's name, or an adapter's behind it."""

    model: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``ttft_s``: until its first text. ``error``: empty for a complete one."""

    question: Question
    text: str = ""
    ttft_s: float = 0.0
    error: str = ""


def draw(models: Sequence[str], prompts: Sequence[str], count: int, seed: int) -> list[Question]:
    """Questions whose models' popularity falls as 1, 1/2, 1/3, ... (Zipf)."""
    rng = random.Random(seed)
    weights = [1.0 / (place + 1) for place in range(len(models))]
    drawn = rng.choices(models, weights, k=count)
    return [Question(model, rng.choice(prompts)) for model in drawn]


async def ask_all(
    target: Target, questions: Sequence[Question], streams: int, tokens: int
) -> list[Answer]:
    """All questions in order, ``streams`` of them at a time."""
    left = iter(questions)
    answers: list[Answer] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as http:

        async def work() -> None:
            for question in left:
                answers.append(await _ask(http, target, question, tokens))

        await asyncio.gather(*(work() for _ in range(streams)))
    return answers


async def _ask(
    http: aiohttp.ClientSession, target: Target, question: Question, tokens: int
) -> Answer:
    body = {
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
    }
    url = f"http://{target.host}:{target.port}/v1/chat/completions"
    asked_s, first_s, text, ended = time.monotonic(), 0.0, "", False
    try:
        async with http.post(url, json=body, headers=dict(target.headers)) as response:
            if response.status != 200:
                return Answer(question, error=f"status {response.status}")
            async for line in response.content:
                ended = ended or line.startswith(b"data: [DONE]")
                piece = _text(line)
                if piece:
                    first_s = first_s or time.monotonic()
                    text += piece
    except (aiohttp.ClientError, TimeoutError) as error:
        return Answer(question, error=repr(error))
    return Answer(question, text, first_s - asked_s, "" if ended and first_s else "broken off")


def _text(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[len(b"data: ") :]).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


async def count_loads(target: Target, token: str) -> int:
    """Loads of adapters on all replicas since their start, as the gateway was told."""
    url = f"http://{target.host}:{target.port}/metrics"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        response.raise_for_status()
        return sum(int(float(value)) for value in _LOADS.findall(await response.text()))


def mixed_up(answers: Sequence[Answer], alone: Mapping[Question, str]) -> int:
    """Answers that are another model's to the same prompt. One that is nobody's differs by how the
    engine batches, and is counted by :func:`equal`."""
    others = {(question.prompt, text): question.model for question, text in alone.items()}
    found = 0
    for answer in answers:
        if answer.error or answer.text == alone[answer.question]:
            continue
        found += (answer.question.prompt, answer.text) in others
    return found


def equal(answers: Sequence[Answer], alone: Mapping[Question, str]) -> float:
    """The share of complete answers that are what their question got alone."""
    complete = [answer for answer in answers if not answer.error]
    if not complete:
        return 0.0
    return sum(answer.text == alone[answer.question] for answer in complete) / len(complete)
