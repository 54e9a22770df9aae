"""Anthropic's answers, read back by the types of Anthropic's own client."""

from __future__ import annotations

import json
from typing import Any

import anthropic.types
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from deployments import wire
from deployments.gateway.dialects.message_writer import MessageWriter, error_body
from deployments.gateway.outputs import Collected, Counts, Output
from weir import errors

COUNTS = Counts(prompt_tokens=10, cached_tokens=4, output_tokens=3)
_EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)


def _events(raw: bytes) -> list[dict[str, Any]]:
    parts = raw.decode().split("\n\n")
    assert parts.pop() == ""
    events = []
    for part in parts:
        name, _, data = part.partition("\ndata: ")
        events.append(json.loads(data))
        assert name == f"event: {events[-1]['type']}"
    return events


def _streamed(outputs: list[Output]) -> tuple[list[str], anthropic.types.Message]:
    """The events' types, and the message as the official client puts it together."""
    writer = MessageWriter("m", "r", 10)
    raw = b"".join(writer.event(0, output) for output in outputs) + writer.last_event(COUNTS)
    events = _events(raw)
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        if event["type"] != "ping":  # the client drops it before it reads events
            told = _EVENT.validate_python(event)
            snapshot = accumulate_event(event=told, current_snapshot=snapshot, json_bufs=buffers)
    return [event["type"] for event in events], snapshot


def _whole(outputs: list[Output]) -> anthropic.types.Message:
    collected = Collected()
    for output in outputs:
        collected.add(output)
    raw = MessageWriter("m", "r", 10).whole([collected], COUNTS)
    return anthropic.types.Message.model_validate_json(raw)


def _both(outputs: list[Output]) -> anthropic.types.Message:
    """The message; the same whether it was streamed or not."""
    whole = _whole(outputs)
    streamed = _streamed(outputs)[1]
    assert streamed.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)
    return whole


def _done(reason: str, extra: wire.Extra | None = None, text: str = "") -> Output:
    done = (1, text, [2], reason, 10, 4, 3)
    return wire.Done(*done) if extra is None else wire.RichDone(*done, extra)


@given(st.text(min_size=1, max_size=30))
def test_any_text(text: str) -> None:
    types, message = _streamed([wire.Chunk(1, text, [1]), _done("stop", text="!")])
    assert types == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert message.content[0].text == text + "!"  # type: ignore[union-attr]


def test_head_and_counts() -> None:
    message = _both([wire.Chunk(1, "a", [1]), _done("stop", text="b")])
    assert (message.id, message.model, message.role) == ("msg_r", "m", "assistant")
    usage = message.usage
    counted = (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens)
    assert counted == (6, 4, 3)


@pytest.mark.parametrize(
    ("reason", "stop", "meant"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", 7, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
    ],
)
def test_why_it_ended(reason: str, stop: Any, meant: tuple[str, str | None]) -> None:
    message = _both([_done(reason, wire.Extra(stop_reason=stop), "x")])
    assert (message.stop_reason, message.stop_sequence) == meant


def test_an_answer_without_output() -> None:
    message = _both([_done("stop")])
    assert message.content == []
    assert message.stop_reason == "end_turn"


def test_thinking_then_text_then_tools() -> None:
    outputs = [
        wire.RichChunk(1, "", [1], wire.Extra(reasoning="let me ")),
        wire.RichChunk(1, "I call.", [1], wire.Extra(reasoning="see")),
        wire.RichChunk(1, "", [1], wire.Extra(calls=[wire.CallDelta(0, "", "c1", "f")])),
        wire.RichChunk(1, "", [1], wire.Extra(calls=[wire.CallDelta(0, '{"a": [1,')])),
        wire.RichChunk(
            1,
            "",
            [1],
            wire.Extra(calls=[wire.CallDelta(0, " 2]}"), wire.CallDelta(1, "{}", "c2", "g")]),
        ),
        _done("tool_calls", wire.Extra()),
    ]
    message = _both(outputs)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, first, second = message.content
    assert thinking.thinking == "let me see"  # type: ignore[union-attr]
    assert thinking.signature  # type: ignore[union-attr]
    assert text.text == "I call."  # type: ignore[union-attr]
    assert (first.id, first.name, first.input) == ("c1", "f", {"a": [1, 2]})  # type: ignore[union-attr]
    assert (second.id, second.input) == ("c2", {})  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"
    types, _ = _streamed(outputs)
    assert types.count("content_block_start") == types.count("content_block_stop") == 4


def test_a_named_tool_was_used_too() -> None:
    """Its engine says that it stopped, as OpenAI does."""
    call = wire.Extra(calls=[wire.CallDelta(0, "{}", "c1", "f")])
    assert _both([_done("stop", call)]).stop_reason == "tool_use"


def test_a_call_that_broke_off() -> None:
    call = wire.Extra(calls=[wire.CallDelta(0, '{"path": "a", "text": "unfin', "c1", "f")])
    message = _both([_done("length", call)])
    assert message.content[0].input == {"path": "a"}  # type: ignore[union-attr]
    assert message.stop_reason == "max_tokens"


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_errors_are_of_their_types(kind: type[Any]) -> None:
    if not issubclass(kind, errors.WeirError):
        return
    body = error_body(kind("what is wrong"))
    if body["error"]["type"] != "request_too_large":  # the client has no type for it
        parsed = ErrorResponse.model_validate(body)
        assert parsed.error.message == "what is wrong"
    assert (body["error"]["type"] == "invalid_request_error") == (
        kind.status in (400, 405, 408, 409, 412, 415, 416, 422, 428)
    )


def test_an_error_names_the_field_once() -> None:
    silent = errors.ContextLengthError("It does not fit.", param="max_tokens")
    assert error_body(silent)["error"]["message"] == "max_tokens: It does not fit."
    telling = errors.BadRequestError("top_p: too large.", param="top_p")
    assert error_body(telling)["error"]["message"] == "top_p: too large."


def test_an_error_in_the_stream() -> None:
    writer = MessageWriter("m", "r", 1)
    (event,) = _events(writer.error_event(errors.ReplicaFailedError("gone")))
    assert event == {"type": "error", "error": {"type": "api_error", "message": "gone"}}
