"""Rendering answers in OpenAI's wire format. Pure: text and counts in, bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts of one answer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def usage(self) -> dict[str, Any]:
        """OpenAI's ``usage`` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class Answer(Protocol):
    """How one endpoint writes its answer."""

    def chunk(self, text: str, finish_reason: str | None) -> bytes:
        """One server-sent event with new text; the last one has a finish reason."""
        ...

    def usage_chunk(self, counts: Counts) -> bytes:
        """The extra event that ``stream_options.include_usage`` asks for."""
        ...

    def whole(self, text: str, finish_reason: str, counts: Counts) -> bytes:
        """The plain JSON answer."""
        ...


class ChatAnswer:
    """``chat.completion`` and its chunks. The constant part of a chunk is rendered once."""

    def __init__(self, request_id: str, model: str, created: int) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created = created
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        self._role = b'"role":"assistant",'

    def chunk(self, text: str, finish_reason: str | None) -> bytes:
        role, self._role = self._role, b""
        reason = orjson.dumps(finish_reason)
        return (
            b'%b{"index":0,"delta":{%b"content":%b},"logprobs":null,"finish_reason":%b}]}\n\n'
            % (
                self._head,
                role,
                orjson.dumps(text),
                reason,
            )
        )

    def usage_chunk(self, counts: Counts) -> bytes:
        return self._head + b'],"usage":' + orjson.dumps(counts.usage()) + b"}\n\n"

    def whole(self, text: str, finish_reason: str, counts: Counts) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return orjson.dumps(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": self._model,
                "choices": [choice],
                "usage": counts.usage(),
            }
        )


class TextAnswer:
    """``text_completion`` and its chunks."""

    def __init__(self, request_id: str, model: str, created: int) -> None:
        self._base = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._head = b"data: " + orjson.dumps(self._base)[:-1] + b',"choices":['

    def chunk(self, text: str, finish_reason: str | None) -> bytes:
        return b'%b{"index":0,"text":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (
            self._head,
            orjson.dumps(text),
            orjson.dumps(finish_reason),
        )

    def usage_chunk(self, counts: Counts) -> bytes:
        return self._head + b'],"usage":' + orjson.dumps(counts.usage()) + b"}\n\n"

    def whole(self, text: str, finish_reason: str, counts: Counts) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps({**self._base, "choices": [choice], "usage": counts.usage()})


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream, where the status line is long gone."""
    return b"data: " + orjson.dumps(body) + b"\n\n"
