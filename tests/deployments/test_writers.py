"""Answers are what the official client expects: parsed back by its own models."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments import wire
from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody
from deployments.gateway.dialects.chat import ChatWriter
from deployments.gateway.dialects.completions import CompletionWriter
from deployments.gateway.dialects.embeddings import EmbeddingWriter
from deployments.gateway.outputs import Collected, Counts
from weir.errors import ReplicaFailedError

COUNTS = Counts(prompt_tokens=10, cached_tokens=4, output_tokens=3)
MESSAGES = [{"role": "user", "content": "x"}]


def _chat(**fields: Any) -> ChatWriter:
    body = ChatBody.model_validate({"model": "m", "messages": MESSAGES, **fields})
    return ChatWriter(body, "id", 1, [[1] * 10])


def _text(echoed: list[str] | None = None, **fields: Any) -> CompletionWriter:
    body = CompletionBody.model_validate({"model": "m", "prompt": "p", **fields})
    return CompletionWriter(body, "i", 1, [[1]], echoed or [])


def _events(data: bytes) -> list[dict[str, Any]]:
    parts = data.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") and "\n" not in part for part in parts)
    return [json.loads(part[6:]) for part in parts]


def _chunks(data: bytes) -> list[ChatCompletionChunk]:
    return [ChatCompletionChunk.model_validate(event) for event in _events(data)]


@given(st.text(min_size=1, max_size=30))
def test_chat_chunks_carry_any_text(text: str) -> None:
    writer = _chat(stream=True)
    role, first = _chunks(writer.event(0, wire.Chunk(1, text, [1])))
    assert (role.choices[0].delta.role, role.choices[0].delta.content) == ("assistant", "")
    assert first.choices[0].delta.content == text
    more, last = _chunks(writer.event(0, wire.Done(1, text, [1], "stop", 1, 0, 2)))
    assert more.choices[0].delta.content == text
    assert more.choices[0].finish_reason is None, "text never comes with the finish reason"
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.content is None


def test_choices_are_told_apart() -> None:
    writer = _chat(stream=True, n=2)
    for choice in (1, 0):
        for chunk in _chunks(writer.event(choice, wire.Chunk(1, "a", [1]))):
            assert chunk.choices[0].index == choice


def test_usage_chunk_has_no_choices() -> None:
    options = {"include_usage": True}
    data = _chat(stream=True, stream_options=options).last_event(COUNTS)
    assert data.endswith(b"data: [DONE]\n\n")
    chunk = _chunks(data.removesuffix(b"data: [DONE]\n\n"))[0]
    assert chunk.choices == []
    assert chunk.usage is not None
    assert chunk.usage.total_tokens == 13
    assert chunk.usage.prompt_tokens_details is not None
    assert chunk.usage.prompt_tokens_details.cached_tokens == 4


def test_tool_calls_in_chunks_and_whole() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    writer = _chat(stream=True, tools=[tool])
    begun = wire.Extra(calls=[wire.CallDelta(0, "", "call_1", "f")])
    more = wire.Extra(calls=[wire.CallDelta(0, '{"a":1}')])
    outputs = [
        wire.RichChunk(1, "", [1], begun),
        wire.RichDone(1, "", [2], "tool_calls", 1, 0, 2, more),
    ]
    chunks = [chunk for output in outputs for chunk in _chunks(writer.event(0, output))]
    deltas = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert [d.id for d in deltas] == ["call_1", None]
    assert "".join(d.function.arguments or "" for d in deltas if d.function) == '{"a":1}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    collected = Collected()
    for output in outputs:
        collected.add(output)
    whole = ChatCompletion.model_validate_json(_chat(tools=[tool]).whole([collected], COUNTS))
    message = whole.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"a":1}'


def test_log_probabilities() -> None:
    top = [wire.Scored(7, "b", -0.5), wire.Scored(8, "é", -1.5)]
    extra = wire.Extra(logprobs=[wire.Scored(7, "b", -0.5, top)])
    done = wire.RichDone(1, "b", [7], "stop", 1, 0, 1, extra)
    fields = {"logprobs": True, "top_logprobs": 2}
    chunk = _chunks(_chat(stream=True, **fields).event(0, done))[1]
    assert chunk.choices[0].logprobs is not None
    content = chunk.choices[0].logprobs.content
    assert content is not None
    assert (content[0].token, content[0].logprob) == ("b", -0.5)
    assert content[0].top_logprobs[1].bytes == [0xC3, 0xA9]
    collected = Collected()
    collected.add(done)
    whole = ChatCompletion.model_validate_json(_chat(**fields).whole([collected], COUNTS))
    assert whole.choices[0].logprobs is not None
    text = Completion.model_validate_json(_text(logprobs=2).whole([collected], COUNTS))
    assert text.choices[0].logprobs is not None
    assert text.choices[0].logprobs.tokens == ["b"]


def test_an_echo_stands_in_front_once() -> None:
    writer = _text(["prompt "], stream=True, echo=True)
    first = _events(writer.event(0, wire.Chunk(1, "a", [1])))[0]
    second = _events(writer.event(0, wire.Chunk(1, "b", [1])))[0]
    assert [e["choices"][0]["text"] for e in (first, second)] == ["prompt a", "b"]


def test_whole_answers() -> None:
    said = Collected(["hi"], [1], finish_reason="length")
    chat = ChatCompletion.model_validate_json(_chat().whole([said], COUNTS))
    assert chat.choices[0].message.content == "hi"
    assert chat.id == "chatcmpl-id"
    text = Completion.model_validate_json(_text().whole([said], COUNTS))
    assert (text.choices[0].text, text.choices[0].finish_reason) == ("hi", "length")


def test_text_chunks() -> None:
    options = {"include_usage": True}
    writer = _text(stream=True, stream_options=options)
    event = _events(writer.event(0, wire.Done(1, "a", [1], "stop", 1, 0, 1)))[0]
    assert Completion.model_validate(event).choices[0].text == "a"
    usage = Completion.model_validate(
        _events(writer.last_event(COUNTS).removesuffix(b"data: [DONE]\n\n"))[0]
    ).usage
    assert usage is not None
    assert usage.completion_tokens == 3


def test_embeddings() -> None:
    body = EmbeddingBody.model_validate({"model": "m", "input": ["a", "b"]})
    vectors = [Collected(vector=[0.5, 1.0]), Collected(vector=[2.0, 3.0])]
    whole = EmbeddingWriter(body).whole(vectors, COUNTS)
    answer = CreateEmbeddingResponse.model_validate_json(whole)
    assert [d.embedding for d in answer.data] == [[0.5, 1.0], [2.0, 3.0]]
    assert answer.usage.prompt_tokens == 10


def test_an_error_in_a_stream_is_an_event() -> None:
    event = _events(_chat(stream=True).error_event(ReplicaFailedError("gone")))[0]
    assert event["error"] == {
        "message": "gone",
        "type": "server_error",
        "param": None,
        "code": "replica_failed",
    }
