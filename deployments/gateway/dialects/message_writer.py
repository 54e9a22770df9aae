"""Writes Anthropic's answers and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic_core import from_json

from deployments import wire
from deployments.gateway.outputs import Collected, Counts, Output, extra_of
from weir.errors import WeirError

# Signs the reasoning for nobody. Clients drop reasoning that has no signature when they send a
# conversation back, and the model would miss it.
_SIGNATURE = "weir"
_ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
#: What Anthropic's own servers send to keep a stream open.
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def error_body(error: WeirError) -> dict[str, Any]:
    """Anthropic's error object: ``{"type": "error", "error": {type, message}, "request_id"}``. The
    type follows from the status; there is no place for the field at fault but the message."""
    kind = _ERROR_TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message
    if error.param is not None and error.param not in message:
        message = f"{error.param}: {message}"
    named = {"request_id": error.request_id} if error.request_id else {}
    return {"type": "error", "error": {"type": kind, "message": message}, **named}


def error_event(error: WeirError) -> bytes:
    """An error on an event stream."""
    return b"event: error\ndata: " + orjson.dumps(error_body(error)) + b"\n\n"


class MessageWriter:
    """``message``, whole and in events: a message's head, then its content block by block
    (thinking, text, a tool's input), then why it ended and what it used.

    A block ends where output of another kind begins. ``prompt_tokens``: 0 where the replica renders
    the prompt; the last event has the right count.
    """

    def __init__(self, model: str, request_id: str, prompt_tokens: int) -> None:
        self._model = model
        self._id = f"msg_{request_id}"
        self._prompt_tokens = prompt_tokens
        self._begun = False
        self._open = ""
        self._blocks = 0
        self._calls: dict[int, int] = {}
        self._ended: tuple[str | None, str | None] = (None, None)

    def event(self, choice: int, output: Output) -> bytes:
        if isinstance(output, wire.Embedded):
            return b""
        extra = extra_of(output)
        events = self._begin()
        if extra is not None and extra.reasoning:
            events += self._thinking(extra.reasoning)
        if output.text:
            events += self._text(output.text)
        for call in extra.calls if extra is not None else ():
            events += self._call(call)
        if isinstance(output, wire.Done):
            stop = extra.stop_reason if extra is not None else None
            self._ended = _end(output.finish_reason, stop, bool(self._calls))
        return events

    def last_event(self, counts: Counts) -> bytes:
        reason, sequence = self._ended
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        told = _event("message_delta", {"delta": delta, "usage": _usage(counts)})
        return self._begin() + self._close() + told + _STOP

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        choice = choices[0]
        content: list[dict[str, Any]] = []
        if choice.reasoning:
            thinking = "".join(choice.reasoning)
            content.append({"type": "thinking", "thinking": thinking, "signature": _SIGNATURE})
        if choice.text:
            content.append({"type": "text", "text": choice.text})
        for call in choice.calls:
            content.append(_tool_use(call.id, call.name, _input(call.arguments)))
        reason, sequence = _end(choice.finish_reason, choice.stop_reason, bool(choice.calls))
        return orjson.dumps(self._message(content, reason, sequence, _usage(counts)))

    def _message(
        self,
        content: list[dict[str, Any]],
        reason: str | None,
        sequence: str | None,
        usage: dict[str, int],
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage,
        }

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        # What of it is cached is told at the end, like everything else that is billed.
        usage = _usage(Counts(self._prompt_tokens))
        return _event("message_start", {"message": self._message([], None, None, usage)}) + PING

    def _thinking(self, text: str) -> bytes:
        opening = self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        return opening + self._delta({"type": "thinking_delta", "thinking": text})

    def _text(self, text: str) -> bytes:
        opening = b""
        if self._open != "text":
            opening = self._switch("text", {"type": "text", "text": ""})
        return (
            b'%bevent: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n'
        ) % (opening, self._blocks - 1, orjson.dumps(text))

    def _call(self, call: wire.CallDelta) -> bytes:
        opening = b""
        if call.index not in self._calls:
            opening = self._switch(f"call {call.index}", _tool_use(call.id, call.name, {}))
            self._calls[call.index] = self._blocks - 1
        if not call.arguments:
            return opening
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return opening + self._delta(delta, self._calls[call.index])

    def _switch(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begins a block of that kind, if none is open."""
        if self._open == kind:
            return b""
        closing = self._close()
        self._open = kind
        self._blocks += 1
        told = {"index": self._blocks - 1, "content_block": block}
        return closing + _event("content_block_start", told)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        signed = b""
        if self._open == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": _SIGNATURE})
        self._open = ""
        return signed + _event("content_block_stop", {"index": self._blocks - 1})

    def _delta(self, delta: dict[str, Any], block: int | None = None) -> bytes:
        index = self._blocks - 1 if block is None else block
        return _event("content_block_delta", {"index": index, "delta": delta})


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))


def _usage(counts: Counts) -> dict[str, int]:
    """``input_tokens`` are those that had to be computed. Nothing is charged for filling the cache,
    so what was added to it is not told apart."""
    return {
        "input_tokens": counts.prompt_tokens - counts.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached_tokens,
        "output_tokens": counts.output_tokens,
    }


def _end(reason: str, stop: int | str | None, called: bool) -> tuple[str, str | None]:
    """Anthropic's reason for the end, and the sequence that was its cause."""
    if reason == "length":
        return "max_tokens", None
    if called:
        return "tool_use", None
    if isinstance(stop, str):
        return "stop_sequence", stop
    return "end_turn", None


def _tool_use(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def _input(arguments: str) -> dict[str, Any]:
    """A tool's input, as far as it goes where the answer broke off in the middle of it: what a
    client that reads the stream makes of it, too."""
    try:
        value = from_json(arguments, allow_partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
