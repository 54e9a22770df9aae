"""Anthropic's official client at the gateway: it is told everything in its own API's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from deployments import wire
from deployments.testing.world import KEY

HELLO: Any = [{"role": "user", "content": "hello world"}]
PROMPT = [1, 4, 5, 6, 3, 4]
"""user : hello world assistant :"""


@pytest.fixture
async def client(world: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=world.url, api_key=KEY, max_retries=0, timeout=20
    ) as client:
        yield client


async def _started(replica: Any) -> str:
    """The id of the request that has arrived."""
    async with asyncio.timeout(10):
        while not replica.generator.started:  # noqa: ASYNC110 - the generator has no event
            await asyncio.sleep(0.005)
    return str(next(iter(replica.generator.started)))


async def _create(client: anthropic.AsyncAnthropic, **fields: Any) -> Any:
    body = {"model": "m", "max_tokens": 8, "messages": HELLO, **fields}
    return await client.messages.create(**body)


async def test_a_whole_answer(world: Any, client: anthropic.AsyncAnthropic) -> None:
    replica = await world.add_replica("a")
    replica.generator.cached_tokens = 4
    pending = asyncio.ensure_future(_create(client))
    request = await _started(replica)
    assert replica.generator.requests[request].prompt == PROMPT
    replica.generator.end(request, "hi", count=2)
    message = await pending
    assert message.content[0].text == "hi"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (2, 4, 2)


async def test_a_stream(world: Any, client: anthropic.AsyncAnthropic) -> None:
    replica = await world.add_replica("a")

    async def ask() -> Any:
        body: dict[str, Any] = {"model": "m", "max_tokens": 8, "messages": HELLO}
        async with client.messages.stream(**body, stop_sequences=["END"]) as stream:
            texts = [text async for text in stream.text_stream]
            return texts, await stream.get_final_message()

    pending = asyncio.ensure_future(ask())
    request = await _started(replica)
    replica.generator.put(request, "hel")
    replica.generator.end(request, "lo", count=2, extra=wire.Extra(stop_reason="END"))
    texts, message = await pending
    assert "".join(texts) == "hello"
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (6, 2)


async def test_an_error_in_a_stream(world: Any, client: anthropic.AsyncAnthropic) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(_create(client, stream=True))
    request = await _started(replica)
    replica.generator.say(request, "hel")
    stream = await pending
    await replica.listener.stop()
    with pytest.raises(anthropic.APIStatusError) as caught:
        async for _ in stream:
            pass
    assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]


async def test_tokens_are_counted_as_they_are_billed(
    world: Any, client: anthropic.AsyncAnthropic
) -> None:
    count = client.messages.count_tokens
    assert (await count(model="m", messages=HELLO)).input_tokens == len(PROMPT)
    replica = await world.add_replica("a")
    assert (await count(model="m", messages=HELLO)).input_tokens == len(PROMPT)
    long: Any = [{"role": "user", "content": "hello " * 200}]
    assert (await count(model="m", messages=long)).input_tokens > replica.info.max_model_len
    assert not replica.generator.requests
    image: Any = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    with pytest.raises(anthropic.BadRequestError, match="cannot be counted"):
        await count(model="m", messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.NotFoundError):
        await count(model="nobody", messages=HELLO)


async def test_errors_are_the_clients_own(world: Any, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        await _create(client.copy(api_key="weir_wrong"))
    assert wrong.value.type == "authentication_error"
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.role") as bad:
        await _create(client, messages=[{"role": "king", "content": "x"}])
    assert bad.value.type == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError) as missing:
        await _create(client, model="nobody")
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.APIStatusError) as nobody:
        await _create(client)
    assert (nobody.value.status_code, nobody.value.type) == (503, "overloaded_error")


async def test_errors_before_the_body_is_read(world: Any) -> None:
    url = world.url + "/v1/messages"
    key = {"x-api-key": KEY}
    form = {"content-type": "text/plain"}
    for method, path, headers, data, status in (
        ("GET", url, key, None, 405),
        ("POST", url, {}, b"{}", 401),
        ("POST", url, {**key, **form}, b"{}", 415),
        ("POST", url, key, b"x" * 20_000, 413),
        ("POST", url, key, b"{", 400),
        ("POST", url + "/count_tokens", {}, b"{}", 401),
        ("POST", url + "/batches", {"anthropic-version": "2023-06-01"}, b"{}", 404),
    ):
        sent = {"content-type": "application/json", **headers}
        async with world.session.request(method, path, headers=sent, data=data) as response:
            assert response.status == status, (method, path)
            told = await response.json()
            assert set(told) == {"type", "error", "request_id"}
            assert told["request_id"] == response.headers["x-request-id"]
            assert set(told["error"]) == {"type", "message"}


async def test_keys_come_in_either_header_for_every_dialect(world: Any) -> None:
    models = world.url + "/v1/models"
    for headers, status in (
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"Bearer {KEY}", "x-api-key": "weir_wrong"}, 200),
        ({"authorization": "Bearer weir_wrong", "x-api-key": KEY}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": f"Bearer {KEY}"}, 401),
    ):
        async with world.session.get(models, headers=headers) as response:
            assert response.status == status, headers
    body = {"model": "m", "messages": HELLO}
    for path in ("chat/completions", "messages"):
        told = {**body, "max_tokens": 3}
        headers = {"x-api-key": KEY}
        async with world.session.post(
            f"{world.url}/v1/{path}", json=told, headers=headers
        ) as response:
            assert response.status == 503, "the key is good; there is no replica"


async def test_models_as_their_client_lists_them(
    world: Any, client: anthropic.AsyncAnthropic
) -> None:
    await world.add_replica("a")
    listed = [model async for model in client.models.list()]
    assert [(m.id, m.type, m.lifecycle, m.max_input_tokens) for m in listed] == [
        ("m", "model", "active", 64)
    ]
    assert (await client.models.retrieve("m")).display_name == "m"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("nobody")
    headers = {"x-api-key": KEY}
    async with world.session.get(world.url + "/v1/models", headers=headers) as response:
        assert (await response.json())["object"] == "list"
