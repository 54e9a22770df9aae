"""Anthropic's official client, unmodified, over HTTP, against real engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from weir.samples import check
from weir.samples import requests as desk_requests

pytestmark = pytest.mark.e2e

QUESTION: Any = [{"role": "user", "content": "What are your opening hours?"}]
#: This client has no argument for it any more.
GREEDY = {"temperature": 0}
TOOL: Any = {
    "name": "cancel_order",
    "input_schema": {
        "type": "object",
        "properties": {"order": {"enum": ["first", "second"]}},
        "required": ["order"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(platform: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=platform.url, api_key=platform.key, max_retries=0, timeout=120
    ) as client:
        yield client


def _create(client: anthropic.Anthropic, platform: Any, **fields: Any) -> Any:
    body = {
        "model": platform.model,
        "max_tokens": 32,
        "messages": QUESTION,
        "extra_body": GREEDY,
        **fields,
    }
    return client.messages.create(**body)


def test_messages_answer_the_support_desk_right(client: anthropic.Anthropic, platform: Any) -> None:
    examples = list(desk_requests(seed=11, n=8, split="heldout", intents=["order_item"]))
    right = 0
    for example in examples:
        turns = [dict(message) for message in example.messages]
        system = "\n".join(str(turn["content"]) for turn in turns if turn["role"] == "system")
        asked = [turn for turn in turns if turn["role"] != "system"]
        answer = _create(client, platform, system=system, messages=asked, max_tokens=64)
        right += check(example, answer.content[0].text)
        assert answer.stop_reason == "end_turn"
    assert right >= 6, f"{right} of {len(examples)} answers state the right facts"


def test_a_stream_says_the_same_and_counts_the_same(
    client: anthropic.Anthropic, platform: Any
) -> None:
    whole = _create(client, platform)
    with client.messages.stream(
        model=platform.model, max_tokens=32, messages=QUESTION, extra_body=GREEDY
    ) as stream:
        pieces = list(stream.text_stream)
        last = stream.get_final_message()
    assert "".join(pieces) == whole.content[0].text
    assert len(pieces) > 3, "the answer came in one piece"
    for message in (whole, last):
        usage = message.usage
        counted = usage.input_tokens + (usage.cache_read_input_tokens or 0)
        told = client.messages.count_tokens(model=platform.model, messages=QUESTION)
        assert counted == told.input_tokens
    assert last.usage.output_tokens == whole.usage.output_tokens
    assert last.stop_reason == whole.stop_reason


def test_a_stop_sequence_is_named(client: anthropic.Anthropic, platform: Any) -> None:
    text = _create(client, platform).content[0].text
    word = text.split()[2]
    stopped = _create(client, platform, stop_sequences=["never said", word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert stopped.content[0].text == text[: text.index(word)]
    short = _create(client, platform, max_tokens=2)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)


def test_an_answer_that_the_client_begins(client: anthropic.Anthropic, platform: Any) -> None:
    text = _create(client, platform).content[0].text
    head = text[: text.index(" ", 10)]
    begun = [*QUESTION, {"role": "assistant", "content": head}]
    assert head + _create(client, platform, messages=begun).content[0].text == text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "choice", [{"type": "any"}, {"type": "tool", "name": "cancel_order"}], ids=["any", "tool"]
)
def test_a_forced_tool_is_called(
    client: anthropic.Anthropic, platform: Any, choice: Any, stream: bool
) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 96}
    if stream:
        body: dict[str, Any] = {"model": platform.model, "messages": QUESTION, "extra_body": GREEDY}
        with client.messages.stream(**body, **fields) as told:
            message: Any = told.get_final_message()
    else:
        message = _create(client, platform, **fields)
    # The grammar leaves the model nothing but a call; whether a model of this size ever closes its
    # braces is another matter.
    assert message.stop_reason in ("tool_use", "max_tokens")
    called = [block for block in message.content if block.type == "tool_use"]
    assert called, message
    assert called[0].name == "cancel_order"
    if message.stop_reason == "tool_use":
        assert called[0].input["order"] in ("first", "second")
    result = {"type": "tool_result", "tool_use_id": called[0].id, "content": "cancelled"}
    turns = [*QUESTION, {"role": "assistant", "content": message.content}]
    turns.append({"role": "user", "content": [result]})
    again = _create(client, platform, messages=turns, tools=[TOOL])
    assert again.usage.output_tokens > 0


def test_wrong_keys_and_fields(client: anthropic.Anthropic, platform: Any) -> None:
    with pytest.raises(anthropic.AuthenticationError) as key:
        _create(client.copy(api_key="weir_wrong"), platform)
    assert key.value.type == "authentication_error"
    with pytest.raises(anthropic.BadRequestError, match="temperature") as field:
        _create(client, platform, extra_body={"temperature": 9})
    assert field.value.type == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        _create(client, platform, model="nobody")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        _create(client, platform, max_tokens=1_000_000)


def test_the_key_as_a_bearer_token(platform: Any) -> None:
    """As coding agents send it."""
    with anthropic.Anthropic(
        base_url=platform.url, auth_token=platform.key, max_retries=0
    ) as client:
        assert _create(client, platform, max_tokens=1).usage.output_tokens == 1


def test_models_are_listed(client: anthropic.Anthropic, platform: Any) -> None:
    assert platform.model in [model.id for model in client.models.list()]
    assert (client.models.retrieve(platform.model).max_input_tokens or 0) > 0
