"""Batches by Anthropic's official client."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types.messages import MessageBatch

from deployments.batches.lines import read_line
from deployments.batches.message_batches import input_of, result_of
from deployments.testing.world import World
from tests.deployments.batches.worlds import Gateways
from weir.errors import BadRequestError


def requests(count: int, **more: Any) -> list[Any]:
    return [
        {
            "custom_id": f"c{i}",
            "params": {
                "model": "m",
                "max_tokens": 4,
                "messages": [{"role": "user", "content": "hello"}],
                **more,
            },
        }
        for i in range(count)
    ]


def client_of(world: World, key: str = "one") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=world.url, api_key=key, max_retries=0)


async def ended(client: anthropic.AsyncAnthropic, batch_id: str) -> MessageBatch:
    async with asyncio.timeout(30):
        while True:
            batch = await client.messages.batches.retrieve(batch_id)
            if batch.processing_status == "ended":
                return batch
            await asyncio.sleep(0.02)


async def test_the_official_clients_example_runs(gateways: Gateways) -> None:
    world = await gateways.start()
    async with client_of(world) as client:
        batch = await client.messages.batches.create(requests=requests(6))
        assert batch.processing_status == "in_progress"
        batch = await ended(client, batch.id)
        assert batch.request_counts.succeeded == 6
        found = [result async for result in await client.messages.batches.results(batch.id)]
        assert sorted(result.custom_id for result in found) == [f"c{i}" for i in range(6)]
        direct = await client.messages.create(**requests(1)[0]["params"])
        for result in found:
            assert result.result.type == "succeeded"
            assert result.result.message.content == direct.content
        listed = [each.id async for each in client.messages.batches.list()]
        assert listed == [batch.id]
        await client.messages.batches.delete(batch.id)
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve(batch.id)
    assert [file async for file in gateways.client(world).files.list()] == []


async def test_each_family_sees_its_own(gateways: Gateways) -> None:
    world = await gateways.start()
    async with client_of(world) as client:
        batch = await client.messages.batches.create(requests=requests(1))
        with pytest.raises(openai.NotFoundError):
            await gateways.client(world).batches.retrieve(batch.id)
        async with client_of(world, "two") as other:
            with pytest.raises(anthropic.NotFoundError):
                await other.messages.batches.retrieve(batch.id)


async def test_what_was_cancelled_is_told(gateways: Gateways) -> None:
    world = await gateways.start(interval_s=0.02)
    async with client_of(world) as client:
        batch = await client.messages.batches.create(requests=requests(100, max_tokens=60))
        await asyncio.sleep(0.5)
        batch = await client.messages.batches.cancel(batch.id)
        assert batch.processing_status in ("canceling", "ended")
        batch = await ended(client, batch.id)
        counts = batch.request_counts
        assert counts.canceled > 0
        assert counts.succeeded + counts.canceled == 100
        found = [result async for result in await client.messages.batches.results(batch.id)]
        kinds = [result.result.type for result in found]
        assert len(kinds) == 100
        assert kinds.count("canceled") == counts.canceled


async def test_a_request_that_cannot_run_is_named(gateways: Gateways) -> None:
    world = await gateways.start()
    async with client_of(world) as client:
        wrong = [*requests(2), *requests(1, model="none")]
        wrong[2]["custom_id"] = "c2"
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.batches.create(requests=wrong)
        assert "requests.2" in str(refused.value)
    assert [file async for file in gateways.client(world).files.list()] == []


def test_requests_become_lines_of_their_own() -> None:
    pretty = b'{"requests": [{"custom_id": "a", "params": {\n "model":\n "m" }}]}'
    (line,) = input_of(pretty).splitlines()
    told = read_line(line)
    assert (told.custom_id, told.url, bytes(told.body)) == ("a", "/v1/messages", b'{"model":"m"}')
    for wrong in (b"", b"[]", b'{"requests": [{}]}', b'{"requests": [{"custom_id": "\xff"}]}'):
        with pytest.raises(BadRequestError):
            input_of(wrong)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"custom_id":"a","response":{"status_code":200,"body":{}},"error":null}', b"succeeded"),
        (b'{"custom_id":"a","response":{"status_code":400,"body":{}},"error":null}', b"errored"),
        (b'{"custom_id":"a","response":null,"error":{"code":"batch_expired"}}', b"expired"),
        (b'{"custom_id":"a","response":null,"error":{"code":"batch_cancelled"}}', b"canceled"),
    ],
)
def test_a_result_has_its_kind(line: bytes, kind: bytes) -> None:
    assert b'"type":"%b"' % kind in result_of(line)
