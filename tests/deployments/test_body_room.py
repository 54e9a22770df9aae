"""Bodies that are being received take a bounded amount of memory."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Callable
from typing import Any

import pytest

from deployments.gateway.app import GatewayApp
from deployments.gateway.body_room import COUNTED_FROM_BYTES, BodyRoom, announced_bytes
from deployments.gateway.request import HttpDoor, MemoryDoor
from deployments.testing import World
from deployments.testing.world import KEY
from weir.errors import BodyTooLargeError, OverloadedError, RateLimitError


def test_one_tenant_has_its_part_and_all_have_a_bound() -> None:
    room, size = BodyRoom(10 * COUNTED_FROM_BYTES, 4 * COUNTED_FROM_BYTES), COUNTED_FROM_BYTES
    assert room.take("a", size - 1) == 0
    for tenant in ("a", "b"):
        for _ in range(4):
            room.take(tenant, size)
        with pytest.raises(RateLimitError) as refused:
            room.take(tenant, size)
        assert refused.value.retry_after_s
    room.take("c", 2 * size)
    with pytest.raises(OverloadedError):
        room.take("d", size)
    room.give_back("a", size)
    room.take("d", size)
    assert room.held_bytes == 10 * size


def test_a_body_that_is_larger_than_the_bound_is_taken_alone() -> None:
    room = BodyRoom(COUNTED_FROM_BYTES, COUNTED_FROM_BYTES)
    assert room.take("a", 5 * COUNTED_FROM_BYTES)
    with pytest.raises(OverloadedError):
        room.take("b", COUNTED_FROM_BYTES)
    room.give_back("a", 5 * COUNTED_FROM_BYTES)
    assert room.held_bytes == 0


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({}, 0),
        ({"content-length": "70"}, 70),
        ({"content-length": "9" * 400}, 1000),
        ({"content-length": "-1"}, 0),
        ({"transfer-encoding": "chunked"}, 1000),
    ],
)
def test_the_size_is_what_the_headers_say(headers: dict[str, str], size: int) -> None:
    assert announced_bytes(MemoryDoor(b"", headers), 1000) == size


async def test_a_client_that_leaves_gives_its_room_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.body_room.COUNTED_FROM_BYTES", 10)
    app = GatewayApp(world.gateway, world.responses, None)
    room = world.gateway.intake.room
    gone, answers = asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        answers.append(event)

    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-length", b"500")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": headers,
        "query_string": b"",
    }
    asking: Callable[[], Any] = lambda: app(scope, receive, send)  # noqa: E731
    work = asyncio.create_task(asking())
    await asyncio.sleep(0)
    assert room.held_bytes == 500
    gone.set()
    await work
    assert room.held_bytes == 0
    assert answers == []


async def test_the_body_of_a_page_takes_room_while_it_is_used(world: World) -> None:
    intake = world.gateway.intake
    door = MemoryDoor(b"[]", {"content-length": str(COUNTED_FROM_BYTES)})
    async with intake.received("t", door, 10 * COUNTED_FROM_BYTES) as raw:
        assert raw == b"[]"
        assert intake.room.held_bytes == COUNTED_FROM_BYTES
    assert intake.room.held_bytes == 0


async def test_a_long_body_is_decompressed_in_its_tenants_turn(world: World) -> None:
    intake, turns = world.gateway.intake, []

    class Turns:
        async def run(self, tenant: str, size: int, function: Callable[[], Any]) -> Any:
            turns.append(tenant)
            return function()

    intake.off_loop = Turns()  # type: ignore[assignment]
    for body, taken in ((b" " * 9_000, []), (bytes(9_000_000), ["t"])):
        raw = gzip.compress(body)

        async def receive(part: bytes = raw) -> dict[str, Any]:
            return {"type": "http.request", "body": part}

        door = HttpDoor({"headers": [(b"content-encoding", b"gzip")]}, receive)
        with contextlib.suppress(BodyTooLargeError):
            async with intake.received("t", door, 1_000_000) as whole:
                assert whole == body
        assert turns == taken
