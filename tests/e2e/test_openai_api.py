"""What any OpenAI client can do, with the official one, over HTTP, against real engines."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from weir.samples import check
from weir.samples import requests as desk_requests

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "What are your opening hours?"}]


def test_chat_answers_the_support_desk_right(platform: Any) -> None:
    client = platform.client()
    intents = ["order_item", "opening_hours", "return_window", "loyalty"]
    examples = list(desk_requests(seed=11, n=20, split="heldout", intents=intents))
    right = 0
    for example in examples:
        answer = client.chat.completions.create(
            model=platform.model, messages=list(example.messages), temperature=0, max_tokens=64
        )
        right += check(example, answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 50
    assert right >= 16, f"{right} of {len(examples)} answers state the right facts"


def test_streaming_gives_the_same_text_and_usage(platform: Any) -> None:
    client = platform.client()
    ask: dict[str, Any] = {
        "model": platform.model,
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**ask)
    chunks = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 3, "the answer came in one piece"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage or (
        chunks[-1].usage is not None
        and whole.usage is not None
        and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    )


def test_stream_without_usage_has_none(platform: Any) -> None:
    chunks = platform.client().chat.completions.create(
        model=platform.model, messages=QUESTION, max_tokens=4, stream=True
    )
    assert all(chunk.usage is None for chunk in chunks)


def test_completions_plain_stream_and_token_ids(platform: Any) -> None:
    client = platform.client()
    text = client.completions.create(
        model=platform.model, prompt="The order", max_tokens=8, temperature=0
    )
    assert text.choices[0].finish_reason in ("length", "stop")
    assert text.usage is not None
    streamed = client.completions.create(
        model=platform.model, prompt="The order", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in streamed) == text.choices[0].text
    ids = client.completions.create(
        model=platform.model, prompt=[5, 6, 7], max_tokens=3, extra_body={"ignore_eos": True}
    )
    assert ids.usage is not None
    assert (ids.usage.prompt_tokens, ids.usage.completion_tokens) == (3, 3)


def test_several_prompts_and_choices_go_through_vllm(platform: Any) -> None:
    client = platform.client()
    two = client.completions.create(model=platform.model, prompt=["one", "two"], max_tokens=4)
    assert len(two.choices) == 2
    several = client.chat.completions.create(
        model=platform.model, messages=QUESTION, n=2, max_tokens=4
    )
    assert len(several.choices) == 2


def test_logprobs_stream_and_plain(platform: Any) -> None:
    client = platform.client()
    ask: dict[str, Any] = {
        "model": platform.model,
        "messages": QUESTION,
        "max_tokens": 4,
        "logprobs": True,
        "top_logprobs": 2,
    }
    plain = client.chat.completions.create(**ask)
    assert plain.choices[0].logprobs is not None
    assert len(plain.choices[0].logprobs.content or []) >= 1
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert any(c.choices and c.choices[0].logprobs for c in chunks)
    assert all(c.usage is None for c in chunks), "usage is for those who ask for it"


def test_json_schema_is_obeyed(platform: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"status": {"enum": ["shipped", "pending"]}, "late": {"type": "boolean"}},
        "required": ["status", "late"],
        "additionalProperties": False,
    }
    answer = platform.client().chat.completions.create(
        model=platform.model,
        messages=QUESTION,
        max_tokens=64,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "state", "schema": schema, "strict": True},
        },
    )
    parsed = json.loads(answer.choices[0].message.content or "")
    assert parsed["status"] in ("shipped", "pending")
    assert isinstance(parsed["late"], bool)


def test_tools_reach_vllm(platform: Any) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "cancel_order",
            "parameters": {
                "type": "object",
                "properties": {"order": {"enum": ["first", "second"]}},
                "required": ["order"],
            },
        },
    }
    answer = platform.client().chat.completions.create(
        model=platform.model,
        messages=QUESTION,
        max_tokens=64,
        temperature=0,
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "cancel_order"}},
    )
    # The grammar leaves the model nothing but a call; whether a model of this size ever closes its
    # braces is another matter.
    message = answer.choices[0].message
    written = [call.function.name for call in message.tool_calls or []] or [message.content or ""]
    assert "cancel_order" in written[0]


def test_models_are_listed(platform: Any) -> None:
    client = platform.client()
    assert platform.model in [m.id for m in client.models.list()]
    assert client.models.retrieve(platform.model).id == platform.model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_embeddings_say_that_the_model_cannot(platform: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support embeddings") as error:
        platform.client().embeddings.create(model=platform.model, input="hello")
    assert error.value.code == "unsupported_operation"


def test_health_ready_docs_and_metrics(platform: Any) -> None:
    with platform.http() as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/ready").json()["replicas"] == {platform.model: 2, "weir-student": 1}
        assert "swagger" in http.get("/docs").text.lower()
        assert "/v1/chat/completions" in http.get("/openapi.json").json()["paths"]
        assert http.get("/metrics").status_code == 401
    metrics = platform.metrics()
    for name in ("weir_requests_total", "weir_time_to_first_token_seconds_bucket", "vllm:"):
        assert name in metrics


def test_gateway_and_engine_tokenize_alike(platform: Any) -> None:
    """The gateway's token ids are the ones that vLLM would make: prompt lengths agree."""
    client = platform.client()
    conversations: list[list[dict[str, Any]]] = [
        QUESTION,
        [{"role": "system", "content": "Be brief."}, *QUESTION],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            }
        ],
        [*QUESTION, {"role": "assistant", "content": "Nine to five."}, *QUESTION],
        [{"role": "user", "content": "ünïcödé 你好 🦦 <|user|> \n\t  x"}],
    ]
    for messages in conversations:
        ours = client.chat.completions.create(model=platform.model, messages=messages, max_tokens=1)
        vllms = client.chat.completions.create(
            model=platform.model, messages=messages, max_tokens=1, logprobs=True
        )
        assert ours.usage is not None
        assert vllms.usage is not None
        assert ours.usage.prompt_tokens == vllms.usage.prompt_tokens, messages


def test_request_id_comes_back(platform: Any) -> None:
    with platform.http() as http:
        response = http.post(
            "/v1/chat/completions",
            json={"model": platform.model, "messages": QUESTION, "max_tokens": 2},
            headers={"x-request-id": "my-request-1"},
        )
    assert response.headers.get_list("x-request-id") == ["my-request-1"]
    assert response.json()["id"] == "chatcmpl-my-request-1"
    assert response.headers["x-weir-replica"]
