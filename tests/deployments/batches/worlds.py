"""Batches over one or several gateways that share a database and a storage: real sockets, the
official client, no Ray and no model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch

from deployments.batches.service import Batches
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.counting import CountingGenerator, Meter
from deployments.testing.world import World, http_world
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.batches import BatchesSettings, FilesSettings
from weir.settings.tree import GatewaySettings, ServerSettings
from weir.tenancy import hash_key

ENDED = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


def settings_of(batches: BatchesSettings, files: FilesSettings) -> Settings:
    """One model; tenants whose keys are ``one`` and ``two``, and one that is for chats only."""
    return Settings(
        server=ServerSettings(max_body_bytes=20_000, request_timeout_s=30),
        gateway=GatewaySettings(resume_wait_s=0.3, standbys=0),
        models=(ModelSettings(name="m", source="x"), ModelSettings(name="other", source="x")),
        tenants=(
            TenantSettings(id="one", key_sha256=(hash_key("one"),)),
            TenantSettings(id="two", key_sha256=(hash_key("two"),), models=("m",)),
            TenantSettings(id="urgent", key_sha256=(hash_key("urgent"),), classes=("interactive",)),
        ),
        batches=batches,
        files=files,
    )


class Gateways:
    """Gateways that share files and jobs in ``folder``. ``meter`` knows what their replicas did."""

    def __init__(self, stack: AsyncExitStack, encoder: PromptEncoder, folder: Path) -> None:
        self.folder = folder
        self.meter = Meter()
        self._stack = stack
        self._encoder = encoder
        self.batches = BatchesSettings(chunk_lines=4, lease_s=1.0)
        self.files = FilesSettings()

    async def start(
        self, replicas: int = 1, interval_s: float = 0.001, embeds: bool = False
    ) -> World:
        """One more gateway, with replicas of its own."""
        settings = settings_of(self.batches, self.files)
        encoders = {model.name: self._encoder for model in settings.models}
        opened = http_world(settings, encoders, files=self.folder)
        world = await self._stack.enter_async_context(opened)
        tasks = frozenset({"embed"} if embeds else {"generate"})
        for number in range(replicas):
            generator = CountingGenerator(interval_s, self.meter)
            await world.add_replica(f"r{number}", generator, tasks=tasks, max_model_len=512)
        return world

    def client(self, world: World, key: str = "one") -> openai.AsyncOpenAI:
        """The official client of a tenant."""
        client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0)
        self._stack.push_async_callback(client.close)
        return client


def batches_of(world: World) -> Batches:
    """A gateway's batches."""
    assert world.batches is not None
    return world.batches


def chat_line(number: int, model: str = "m", **more: Any) -> dict[str, Any]:
    """A request for a chat."""
    content = " ".join(["hello"] * (1 + number % 5) + ["world"])
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 4,
        **more,
    }
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}


def jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    """Lines of JSON."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def submit(
    client: openai.AsyncOpenAI, content: bytes, endpoint: str = CHAT, **more: Any
) -> Batch:
    """Upload an input and begin a batch over it."""
    file = await client.files.create(file=("input.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,  # type: ignore[arg-type]
        completion_window="24h",
        **more,
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str, limit_s: float = 30.0) -> Batch:
    """The batch when it has ended."""
    return await seen(client, batch_id, lambda batch: batch.status in ENDED, limit_s)


async def seen(
    client: openai.AsyncOpenAI,
    batch_id: str,
    wanted: Callable[[Batch], bool],
    limit_s: float = 30.0,
) -> Batch:
    """The batch as soon as it is as wanted."""
    async with asyncio.timeout(limit_s):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if wanted(batch):
                return batch
            await asyncio.sleep(0.02)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]
