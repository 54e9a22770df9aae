"""Prompts and answers in traces: of tenants that want them there, and of nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from deployments.gateway.bodies import Body
from deployments.gateway.legs import Attempt
from deployments.gateway.outputs import Collected, Counts, Output
from deployments.gateway.sink import Answer
from deployments.gateway.tracing import names


class ToldAnswer:
    """Lets an attempt's answer through, and notes it with its prompt for the trace: at most
    ``most_chars`` of each."""

    def __init__(
        self, answer: Answer, attempt: Attempt, body: Body, choices: int, most_chars: int
    ) -> None:
        self._answer = answer
        self._attempt = attempt
        self._most_chars = most_chars
        self._choices = [Collected() for _ in range(choices)]
        attempt.content[names.INPUT_MESSAGES] = _written(_asked(body), most_chars)

    async def put(self, choice: int, output: Output) -> None:
        """See :class:`deployments.gateway.sink.Answer`."""
        self._choices[choice].add(output)
        try:
            await self._answer.put(choice, output)
        finally:
            if self._choices[choice].finish_reason:
                self._note()

    async def end(self, counts: Counts) -> None:
        """See :class:`deployments.gateway.sink.Answer`."""
        await self._answer.end(counts)

    def _note(self) -> None:
        said = [("assistant", each.text, each.finish_reason) for each in self._choices]
        written = _written(iter(said), self._most_chars)
        self._attempt.content[names.OUTPUT_MESSAGES] = written


def _asked(body: Body) -> Iterator[tuple[str, str, str]]:
    """Role and text of each message or prompt; what is no text is left out."""
    messages = getattr(body, "messages", None)
    if messages is not None:
        for message in messages:
            yield message.role, _text_of(message.content), ""
        return
    prompts: Any = getattr(body, "prompts", list)
    for prompt in prompts():
        yield "user", prompt if isinstance(prompt, str) else "", ""


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [getattr(part, "text", None) for part in content or ()]
    return "\n".join(text for text in texts if isinstance(text, str))


def _written(said: Iterator[tuple[str, str, str]], most_chars: int) -> str:
    """As the conventions for generative AI have it: a JSON list of messages with parts."""
    left, messages = most_chars, []
    for role, text, finish_reason in said:
        part = {"type": "text", "content": text[:left]}
        left -= len(part["content"])
        message: dict[str, Any] = {"role": role, "parts": [part]}
        if finish_reason:
            message["finish_reason"] = finish_reason
        messages.append(message)
        if left <= 0:
            break
    return orjson.dumps(messages).decode()
