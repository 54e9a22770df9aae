"""Who is refused over and over waits for it; others do not."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from deployments.gateway.pacing import Paced
from deployments.gateway.plan import RefusalLimits
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.record import Record
from deployments.gateway.refusals import Refusals
from deployments.gateway.request import HttpDoor, MemoryDoor
from deployments.testing import World
from deployments.testing.world import KEY, http_world
from weir.errors import BadRequestError, OverloadedError, RateLimitError, forget_frames
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.server import RefusalSettings
from weir.settings.tree import ServerSettings
from weir.tenancy import Directory, LiveDirectory, hash_key
from weir.testing import virtual_time

LIMITS = RefusalLimits(per_s=10.0, at_once=5, longest_s=2.0, places=8)


async def _waits(refusals: Refusals, tenant: str, times: int, error: Any) -> list[float]:
    clock = asyncio.get_running_loop().time
    waited = []
    for _ in range(times):
        began_s = clock()
        record = Record("chat", began_s, tenant=tenant)
        await refusals.pause(record, MemoryDoor(b"", {}), error)
        waited.append(round(clock() - began_s, 3))
    return waited


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    async def scenario() -> None:
        refusals = Refusals(LIMITS)
        wrong = BadRequestError("no")
        assert await _waits(refusals, "a", 8, wrong) == [0.0] * 5 + [0.1] * 3
        assert await _waits(refusals, "b", 5, RateLimitError("no")) == [0.0] * 5
        await asyncio.sleep(0.5)
        assert await _waits(refusals, "a", 6, wrong) == [0.0] * 5 + [0.1]

    virtual_time.run(scenario())


def test_many_at_a_time_wait_for_the_longest_time_at_most() -> None:
    async def scenario() -> None:
        refusals = Refusals(RefusalLimits(per_s=10.0, at_once=5, longest_s=2.0, places=1000))
        clients = [_waits(refusals, "a", 3, BadRequestError("no")) for _ in range(200)]
        waited = [each for client in await asyncio.gather(*clients) for each in client]
        assert max(waited) == 2.0
        assert sum(each == 2.0 for each in waited) > 500
        assert refusals.waiting == 0

    virtual_time.run(scenario())


def test_places_are_bounded_and_come_back_when_a_client_leaves() -> None:
    async def scenario() -> None:
        refusals = Refusals(LIMITS)
        tasks = [
            asyncio.create_task(_waits(refusals, "a", 1, BadRequestError("no"))) for _ in range(30)
        ]
        await asyncio.sleep(0)
        assert refusals.waiting == 8
        assert sum(task.done() for task in tasks) == 30 - 8
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert refusals.waiting == 0

    virtual_time.run(scenario())


def test_a_fault_of_the_platform_is_told_at_once() -> None:
    async def scenario() -> None:
        refusals = Refusals(LIMITS)
        assert set(await _waits(refusals, "a", 20, OverloadedError("full"))) == {0.0}

    virtual_time.run(scenario())


def test_what_comes_meanwhile_is_not_kept_and_who_leaves_is_not_waited_for() -> None:
    async def scenario() -> None:
        refusals = Refusals(RefusalLimits(per_s=1.0, at_once=0, longest_s=60.0))
        clock = asyncio.get_running_loop().time
        came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        door = HttpDoor({"type": "http", "headers": []}, came.get)
        for _ in range(3):
            came.put_nowait({"type": "http.request", "body": b"x", "more_body": True})
        began_s = clock()
        await refusals.pause(Record("chat", began_s), door, BadRequestError("no"))
        assert (came.qsize(), clock() - began_s) == (0, 1.0)
        came.put_nowait({"type": "http.disconnect"})
        await refusals.pause(Record("chat", began_s), door, BadRequestError("no"))
        assert clock() - began_s == 1.0
        assert refusals.waiting == 0

    virtual_time.run(scenario())


class _Kept:
    """Stands for a body of megabytes."""


def test_an_error_without_its_frames_keeps_nothing() -> None:
    def read(kept: _Kept) -> None:
        try:
            raise ValueError("from within")
        except ValueError as error:
            raise BadRequestError("no") from error

    body = _Kept()
    seen, error = weakref.ref(body), None
    try:
        read(body)
    except BadRequestError as raised:
        error = raised
    del body
    assert seen() is not None
    assert error is not None
    forget_frames(error)
    assert seen() is None


async def test_a_refused_body_is_gone_before_the_garbage_collector_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []
    parse = world.gateway.intake.parse

    async def watched(dialect: Any, tenant: Any, raw: bytes, unknown: Any) -> Any:
        kept = _Kept()
        seen.append(weakref.ref(kept))
        return await parse(dialect, tenant, raw, unknown)

    monkeypatch.setattr(world.gateway.intake, "parse", watched)
    body = {"model": "m", "messages": [{"role": "user", "content": [0] * 5}]}
    gc.disable()
    try:
        for _ in range(3):
            async with world.post(body) as answer:
                assert answer.status == 400
    finally:
        gc.enable()
    assert [each() for each in seen] == [None] * 3


async def test_pages_keep_to_the_same_pace(encoder: PromptEncoder) -> None:
    """Of models, of files, of what is nowhere; what is answered does not wait."""
    slow = ServerSettings(refusals=RefusalSettings(per_s=10.0, at_once=2))
    settings = Settings(
        server=slow,
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, {"m": encoder}) as world:

        async def ask(path: str, key: str) -> tuple[int, float]:
            clock = asyncio.get_running_loop().time
            began_s, told = clock(), {"authorization": f"Bearer {key}"}
            async with world.session.get(world.url + path, headers=told) as answer:
                return answer.status, clock() - began_s

        wrong = ("/v1/models/none", "/v1/files/none", "/nowhere")
        for key, statuses in ((KEY, {404}), ("nobody", {401, 404})):
            found = [await ask(wrong[number % 3], key) for number in range(6)]
            assert {status for status, _ in found} <= statuses
            assert sum(took_s for _, took_s in found) > 0.3
        assert [status for status, _ in [await ask("/v1/models", KEY) for _ in range(9)]] == [
            200
        ] * 9


def test_who_is_paced_by_what() -> None:
    """A tenant by itself; keys that are nobody's together; the admin API's own beside them."""

    async def scenario() -> None:
        refusals = Refusals(RefusalLimits(per_s=10.0, at_once=1))
        clock = asyncio.get_running_loop().time
        tenant = TenantSettings(id="t", key_sha256=(hash_key(KEY),))
        paced = Paced(refusals, LiveDirectory(Directory.of([tenant]), lambda: 0.0))

        async def waited(status: int, key: str) -> float:
            began_s = clock()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": status, "headers": []})

            async def send(event: Any) -> None:
                assert event["status"] == status

            scope = {"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())]}
            await paced(app, scope, asyncio.Event().wait, send)
            return round(clock() - began_s, 3)

        assert [await waited(404, KEY) for _ in range(3)] == [0.0, 0.1, 0.1]
        assert [await waited(401, "nobody") for _ in range(2)] == [0.0, 0.1]
        assert [await waited(409, "an admin") for _ in range(2)] == [0.0, 0.1]
        assert [await waited(status, KEY) for status in (200, 304, 503)] == [0.0] * 3

    virtual_time.run(scenario())
