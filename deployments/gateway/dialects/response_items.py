"""The output of a response as items, and the events that tell how they come about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deployments import wire
from deployments.gateway.dialects.generating import token_bytes
from deployments.gateway.outputs import Collected, extra_of

Event = tuple[str, dict[str, Any]]
_Item = dict[str, Any]


class OutputItems:
    """Reasoning, messages and function calls, in the order in which they begin.

    ``items`` are complete after :meth:`close`. Reasoning or a message ends when something else
    begins; calls end with the output, since their pieces may come in any order. ``name`` makes the
    items' ids.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.items: list[_Item] = []
        self.reasoning_tokens = 0
        #: Index of the message or reasoning that is being written, and its pieces.
        self._open: int | None = None
        self._pieces: list[str] = []
        self._scored: list[dict[str, Any]] = []
        self._unsent: list[dict[str, Any]] = []
        self._calls: dict[int, int] = {}

    def add(self, output: wire.Chunk | wire.Done) -> Iterator[Event]:
        """What one output adds."""
        extra = extra_of(output) or wire.Extra()
        if extra.reasoning:
            self.reasoning_tokens += len(output.tokens)
            yield from self._write("reasoning", extra.reasoning)
        else:
            self._unsent += [_scored(token) for token in extra.logprobs]
        if output.text:
            yield from self._write("message", output.text)
        for call in extra.calls:
            yield from self._call(call)

    def add_all(self, collected: Collected) -> None:
        """A whole answer, of which there are no events."""
        calls = [
            wire.CallDelta(i, c.arguments, c.id, c.name) for i, c in enumerate(collected.calls)
        ]
        reasoning = wire.Extra(reasoning="".join(collected.reasoning))
        # Reasoning comes first, and its tokens have log-probabilities too.
        scored = collected.logprobs[collected.reasoning_tokens :]
        rest = wire.Extra(logprobs=scored, calls=calls)
        for extra, text in ((reasoning, ""), (rest, collected.text)):
            for _ in self.add(wire.RichChunk(0, text, [], extra)):
                pass
        self.reasoning_tokens = collected.reasoning_tokens

    def close(self, status: str) -> Iterator[Event]:
        """The end. ``status``: of what was still being written. An answer without any output is an
        empty message."""
        if not self.items:
            yield from self._begin("message")
        yield from self._end(status)
        for place in self._calls.values():
            item = self.items[place]
            item["status"] = status
            told = {"item_id": item["id"], "output_index": place, "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", {**told, "name": item["name"]}
            yield "response.output_item.done", {"output_index": place, "item": item}

    def _write(self, kind: str, text: str) -> Iterator[Event]:
        if self._open is None or self.items[self._open]["type"] != kind:
            yield from self._end("completed")
            yield from self._begin(kind)
        self._pieces.append(text)
        told = {**self._place(), "delta": text}
        if kind == "reasoning":
            yield "response.reasoning_text.delta", told
            return
        yield "response.output_text.delta", {**told, "logprobs": self._unsent}
        self._scored += self._unsent
        self._unsent = []

    def _begin(self, kind: str) -> Iterator[Event]:
        prefix = "msg" if kind == "message" else "rs"
        item: _Item = {"id": self._id(prefix), "type": kind, "status": "in_progress"}
        if kind == "message":
            item |= {"role": "assistant", "content": []}
        else:
            item |= {"summary": [], "content": []}
        self._open, self._pieces = len(self.items), []
        self.items.append(item)
        yield "response.output_item.added", {"output_index": self._open, "item": {**item}}
        yield "response.content_part.added", {**self._place(), "part": _part(kind, "", [])}

    def _end(self, status: str) -> Iterator[Event]:
        """The message or reasoning that is being written is complete."""
        if self._open is None:
            return
        item, place, text = self.items[self._open], self._place(), "".join(self._pieces)
        part = _part(item["type"], text, self._scored)
        if item["type"] == "message":
            yield "response.output_text.done", {**place, "text": text, "logprobs": self._scored}
        else:
            yield "response.reasoning_text.done", {**place, "text": text}
        yield "response.content_part.done", {**place, "part": part}
        item |= {"content": [part], "status": status}
        yield "response.output_item.done", {"output_index": self._open, "item": item}
        self._open, self._scored = None, []

    def _call(self, delta: wire.CallDelta) -> Iterator[Event]:
        if delta.index not in self._calls:
            yield from self._end("completed")
            self._calls[delta.index] = len(self.items)
            item: _Item = {
                "id": self._id("fc"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": delta.id,
                "name": delta.name,
                "arguments": "",
            }
            self.items.append(item)
            added = {"output_index": len(self.items) - 1, "item": item}
            yield "response.output_item.added", added
        place = self._calls[delta.index]
        item = self.items[place]
        if delta.arguments:
            item["arguments"] += delta.arguments
            told = {"item_id": item["id"], "output_index": place, "delta": delta.arguments}
            yield "response.function_call_arguments.delta", told

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        item_id = self.items[self._open]["id"]
        return {"item_id": item_id, "output_index": self._open, "content_index": 0}

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._name}_{len(self.items)}"


def _part(kind: str, text: str, scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(scored)}


def _scored(scored: wire.Scored) -> dict[str, Any]:
    return {**_token(scored), "top_logprobs": [_token(token) for token in scored.top]}


def _token(scored: wire.Scored) -> dict[str, Any]:
    return {
        "token": scored.token,
        "logprob": scored.logprob,
        "bytes": token_bytes(scored.token),
    }
