"""Responses and their events are what the official client expects: parsed back by its own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from deployments import wire
from deployments.gateway.dialects.responses import ResponsesDialect, ResponsesWriter
from deployments.gateway.outputs import Collected, Counts, Output
from weir.errors import RateLimitError, ReplicaFailedError

COUNTS = Counts(prompt_tokens=10, cached_tokens=4, output_tokens=3)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def _writer(**fields: Any) -> ResponsesWriter:
    dialect = ResponsesDialect("resp_1")
    body = dialect.parse(json.dumps({"model": "m", "input": "x", **fields}).encode())
    writer = dialect.writer(body, "id", 1, [[1]], None)  # type: ignore[arg-type]
    assert isinstance(writer, ResponsesWriter)
    return writer


def _chunk(text: str = "", tokens: int = 1, **extra: Any) -> wire.RichChunk:
    return wire.RichChunk(1, text, [1] * tokens, wire.Extra(**extra))


def _done(text: str = "", reason: str = "stop", **extra: Any) -> wire.RichDone:
    return wire.RichDone(1, text, [1], reason, 10, 4, 3, wire.Extra(**extra))


def _read(raw: bytes) -> list[Any]:
    events = []
    for part in raw.decode().split("\n\n")[:-1]:
        name, _, told = part.partition("\n")
        event = EVENT.validate_python(json.loads(told.removeprefix("data: ")))
        assert name == f"event: {event.type}"
        events.append(event)
    return events


def _stream(writer: ResponsesWriter, outputs: Sequence[Output]) -> list[Any]:
    raw = b"".join(writer.event(0, output) for output in outputs) + writer.last_event(COUNTS)
    events = _read(raw)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def _whole(writer: ResponsesWriter, outputs: Sequence[Output]) -> Response:
    collected = Collected()
    for output in outputs:
        collected.add(output)
    return Response.model_validate_json(writer.whole([collected], COUNTS))


def test_the_events_of_a_text() -> None:
    events = _stream(_writer(stream=True), [wire.Chunk(1, "a", [1]), _done("b")])
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[2].item.content == []
    response = events[-1].response
    assert (response.status, response.output_text, response.id) == ("completed", "ab", "resp_1")
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.usage.total_tokens == 13


REASONED: Sequence[Output] = [
    _chunk(reasoning="h", tokens=2),
    _chunk("so", 1, reasoning="m"),
    _chunk("!"),
    _chunk(calls=[wire.CallDelta(0, "", "c1", "f"), wire.CallDelta(1, "", "c2", "f")]),
    _chunk(calls=[wire.CallDelta(1, "{2}"), wire.CallDelta(0, "{1")]),
    _done(reason="tool_calls", calls=[wire.CallDelta(0, "}")]),
]


def test_reasoning_text_and_calls() -> None:
    events = _stream(_writer(stream=True, tools=[TOOL]), REASONED)
    response = events[-1].response
    assert [item.type for item in response.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert response.output[0].content[0].text == "hm"
    assert response.output_text == "so!"
    calls = [(c.call_id, c.arguments, c.status) for c in response.output[2:]]
    assert calls == [("c1", "{1}", "completed"), ("c2", "{2}", "completed")]
    assert response.usage.output_tokens_details.reasoning_tokens == 3
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == response.output
    deltas = [e for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(e.delta for e in deltas if e.output_index == 2) == "{1}"


def test_a_whole_response_is_the_streamed_one() -> None:
    streamed = _stream(_writer(tools=[TOOL]), REASONED)[-1].response
    assert _whole(_writer(tools=[TOOL]), REASONED) == streamed


def test_what_is_kept_is_what_was_sent() -> None:
    for stream in (True, False):
        writer, collected = _writer(), Collected()
        for output in REASONED:
            collected.add(output)
        if stream:
            raw = b"".join(writer.event(0, output) for output in REASONED)
        kept = writer.finished(collected, COUNTS)
        if stream:
            events = _read(raw + writer.last_event(COUNTS))
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert Response.model_validate(kept) == events[-1].response
        else:
            assert kept == json.loads(writer.whole([collected], COUNTS))


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_any_text_comes_through(texts: list[str]) -> None:
    events = _stream(_writer(stream=True), [*(wire.Chunk(1, t, [1]) for t in texts), _done()])
    assert events[-1].response.output_text == "".join(texts)
    assert len(events[-1].response.output) == 1, "an answer without output is an empty message"


def test_an_answer_that_was_cut_is_incomplete() -> None:
    events = _stream(_writer(stream=True, max_output_tokens=3), [_done("a", "length")])
    assert events[-1].type == "response.incomplete"
    response = events[-1].response
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


def test_log_probabilities() -> None:
    top = [wire.Scored(7, "b", -0.5), wire.Scored(8, "é", -1.5)]
    outputs: list[Output] = [
        _chunk("", logprobs=[wire.Scored(7, "", -0.1)]),
        _done("b", logprobs=[wire.Scored(7, "b", -0.5, top)]),
    ]
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    events = _stream(_writer(**fields), outputs)
    delta = next(e for e in events if e.type == "response.output_text.delta")
    assert [scored.logprob for scored in delta.logprobs] == [-0.1, -0.5]
    part = events[-1].response.output[0].content[0]
    assert part.logprobs[1].top_logprobs[1].bytes == [0xC3, 0xA9]
    assert _whole(_writer(**fields), outputs) == events[-1].response


def test_log_probabilities_are_those_of_the_text() -> None:
    thought, said = wire.Scored(7, "h", -0.1), wire.Scored(8, "s", -0.2)
    outputs: list[Output] = [
        _chunk(reasoning="h", logprobs=[thought]),
        _done("s", logprobs=[said]),
    ]
    fields = {"include": ["message.output_text.logprobs"]}
    streamed = _stream(_writer(**fields), outputs)[-1].response
    assert [scored.token for scored in streamed.output[1].content[0].logprobs] == ["s"]
    assert _whole(_writer(**fields), outputs) == streamed


@pytest.mark.parametrize(
    ("error", "code"),
    [(ReplicaFailedError("gone"), "server_error"), (RateLimitError("x"), "rate_limit_exceeded")],
)
def test_an_error_in_the_stream(error: Any, code: str) -> None:
    writer = _writer(stream=True)
    events = _read(writer.event(0, wire.Chunk(1, "a", [1])) + writer.error_event(error))
    assert events[-1].type == "response.failed"
    response = events[-1].response
    assert (response.status, response.error.code) == ("failed", code)


def test_the_response_repeats_the_request() -> None:
    fields: dict[str, Any] = {
        "instructions": "be",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "user": "u",
    }
    told = _whole(_writer(**fields), [_done("{}")]).model_dump(by_alias=True, exclude_none=True)
    for name, value in fields.items():
        assert told[name] == value or told[name][0].items() >= value[0].items()
