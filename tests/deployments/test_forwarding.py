"""The admin API on the clients' port: handed on as it is, and a 503 where it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from aiohttp import web

from deployments.gateway.app import GatewayApp
from deployments.gateway.body_room import COUNTED_FROM_BYTES, BodyRoom
from deployments.gateway.forwarding import MAX_BODY_BYTES, ControlDoor
from deployments.gateway.refusals import Refusals
from weir.tenancy import Directory, LiveDirectory


class Control:
    """What the control process would be asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.release = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        if request.path.endswith("/slow"):
            response = web.StreamResponse(headers={"content-type": "text/csv"})
            await response.prepare(request)
            await response.write(b"first\n")
            await self.release.wait()
            await response.write(b"second\n")
            return response
        return web.Response(
            status=201,
            body=b'{"made": true}',
            headers={"etag": '"1"', "location": "/admin/v1/x", "connection": "keep-alive"},
        )


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[tuple[Control, str]]:
    made, path = Control(), str(tmp_path / "control.sock")
    app = web.Application(client_max_size=10 * MAX_BODY_BYTES)
    app.router.add_route("*", "/{anything:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    yield made, f"unix:{path}"
    await runner.cleanup()


@pytest.fixture
async def client(control: tuple[Control, str]) -> AsyncIterator[httpx.AsyncClient]:
    door = ControlDoor(control[1])
    gateway = _no_gateway()
    app = GatewayApp(gateway, gateway, _pages, control=door)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://clients"
    ) as made:
        yield made
    await door.close()


def _no_gateway() -> Any:
    """No request of these is its; the pace of refusals is."""
    nobody = LiveDirectory(Directory.of(()), lambda: 0.0)
    return SimpleNamespace(refusals=Refusals(), directory=nobody)


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"x-page", b"yes")]})
    await send({"type": "http.response.body", "body": b""})


async def test_requests_and_answers_pass_as_they_are(
    client: httpx.AsyncClient, control: tuple[Control, str]
) -> None:
    answer = await client.post(
        "/admin/v1/tenants/a%2Fb?q=%26x&q=2",
        content=b'{"a": 1}',
        headers={"authorization": "Bearer k", "if-match": '"3"', "x-request-id": "mine"},
    )
    assert (answer.status_code, answer.content) == (201, b'{"made": true}')
    assert (answer.headers["etag"], answer.headers["location"]) == ('"1"', "/admin/v1/x")
    assert "connection" not in answer.headers
    asked = control[0].asked[0]
    assert asked.raw_path == "/admin/v1/tenants/a%2Fb?q=%26x&q=2"
    assert (asked.method, control[0].bodies) == ("POST", [b'{"a": 1}'])
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.headers["if-match"] == '"3"'
    assert asked.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/admin/v1", True),
        ("/admin/v1/tenants/", True),
        ("/v1//tenant", True),
        ("/v1/tenant/usage", True),
        ("/v1/tenants", False),
        ("/admin", False),
        ("/admin/v2/x", False),
        ("/health", False),
    ],
)
async def test_only_its_own_paths_are_handed_on(
    path: str, forwarded: bool, client: httpx.AsyncClient, control: tuple[Control, str]
) -> None:
    answer = await client.get(path)
    assert ("x-page" in answer.headers) != forwarded
    assert len(control[0].asked) == forwarded
    if forwarded:
        assert control[0].asked[0].path == "/" + "/".join(p for p in path.split("/") if p)


async def test_head_is_a_get(client: httpx.AsyncClient, control: tuple[Control, str]) -> None:
    await client.head("/v1/tenant")
    assert control[0].asked[0].method == "GET"


async def test_answers_come_piece_by_piece(control: tuple[Control, str]) -> None:
    door, pieces = ControlDoor(control[1]), []
    scope = {"type": "http", "method": "GET", "path": "/v1/tenant/slow", "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        pieces.append(event.get("body"))
        if event.get("body") == b"first\n":
            control[0].release.set()

    await door(scope, receive, send)
    await door.close()
    assert pieces == [None, b"first\n", b"second\n", b""]


@pytest.mark.parametrize("announced", [True, False])
async def test_bodies_are_bounded(
    announced: bool, client: httpx.AsyncClient, control: tuple[Control, str]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (MAX_BODY_BYTES // 4)

    content: Any = b"x" * (MAX_BODY_BYTES + 1) if announced else pieces()
    answer = await client.post("/admin/v1/tenants", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert control[0].asked == []


async def test_away_is_a_503_that_says_when_to_come_again(tmp_path: Path) -> None:
    door = ControlDoor(f"unix:{tmp_path / 'nobody.sock'}")
    gateway = _no_gateway()
    transport = httpx.ASGITransport(app=GatewayApp(gateway, gateway, _pages, control=door))
    async with httpx.AsyncClient(transport=transport, base_url="http://clients") as client:
        answer = await client.get("/admin/v1/tenants")
        elsewhere = await client.get("/health")
    await door.close()
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")
    assert int(answer.headers["retry-after"]) >= 1
    assert elsewhere.headers["x-page"] == "yes"


async def test_an_answer_that_breaks_off_is_not_ended_as_if_it_were_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "breaking.sock")

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(break_off, path)
    door, ended = ControlDoor(f"unix:{path}"), []
    scope = {"type": "http", "method": "GET", "path": "/v1/tenant", "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        ended.append(event.get("more_body"))

    with pytest.raises(ConnectionError):
        await door(scope, receive, send)
    assert False not in ended
    await door.close()
    server.close()


async def test_large_bodies_share_the_room_of_all_bodies(control: tuple[Control, str]) -> None:
    room, large = BodyRoom(), b"x" * COUNTED_FROM_BYTES
    door = ControlDoor(control[1], room)
    gateway = _no_gateway()
    app = GatewayApp(gateway, gateway, _pages, control=door)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://clients") as client:
        others = room.take("", 128 * 1024 * 1024)
        assert (await client.post("/admin/v1/x", content=large)).status_code == 429
        assert (await client.post("/admin/v1/x", content=b"{}")).status_code == 201
        room.give_back("", others)
        assert (await client.post("/admin/v1/x", content=large)).status_code == 201
    assert room.held_bytes == 0
    await door.close()
