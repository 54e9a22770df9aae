"""Answers are what the official client expects: parsed back by its own models."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments.gateway.answers import ChatAnswer, Counts, TextAnswer, error_event
from weir.errors import ReplicaFailedError, error_body

COUNTS = Counts(prompt_tokens=10, cached_tokens=4, output_tokens=3)


def _data(event: bytes) -> dict[str, object]:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2, "a newline inside would split the event"
    return dict(json.loads(event[6:]))


@given(st.text(max_size=30))
def test_chat_chunks_carry_any_text(text: str) -> None:
    answer = ChatAnswer("id", "m", 1)
    first = ChatCompletionChunk.model_validate(_data(answer.chunk(text, None)))
    second = ChatCompletionChunk.model_validate(_data(answer.chunk(text, "stop")))
    assert first.choices[0].delta.content == text
    assert (first.choices[0].delta.role, second.choices[0].delta.role) == ("assistant", None)
    assert second.choices[0].finish_reason == "stop"


def test_usage_chunk_has_no_choices() -> None:
    chunk = ChatCompletionChunk.model_validate(_data(ChatAnswer("i", "m", 1).usage_chunk(COUNTS)))
    assert chunk.choices == []
    assert chunk.usage is not None
    assert chunk.usage.total_tokens == 13
    assert chunk.usage.prompt_tokens_details is not None
    assert chunk.usage.prompt_tokens_details.cached_tokens == 4


def test_whole_answers() -> None:
    chat = ChatCompletion.model_validate_json(ChatAnswer("i", "m", 1).whole("hi", "stop", COUNTS))
    assert chat.choices[0].message.content == "hi"
    assert chat.id == "chatcmpl-i"
    text = Completion.model_validate_json(TextAnswer("i", "m", 1).whole("hi", "length", COUNTS))
    assert (text.choices[0].text, text.choices[0].finish_reason) == ("hi", "length")


def test_text_chunks() -> None:
    answer = TextAnswer("i", "m", 1)
    assert Completion.model_validate(_data(answer.chunk("a", "stop"))).choices[0].text == "a"
    usage = Completion.model_validate(_data(answer.usage_chunk(COUNTS))).usage
    assert usage is not None
    assert usage.completion_tokens == 3


def test_an_error_in_a_stream_is_an_event() -> None:
    event = _data(error_event(error_body(ReplicaFailedError("gone"))))
    assert event["error"] == {
        "message": "gone",
        "type": "server_error",
        "param": None,
        "code": "replica_failed",
    }
