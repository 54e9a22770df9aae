"""A replica's port: probes for everybody, token streams for gateways, nothing else."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
import uvicorn

from deployments import wire
from deployments.gateway.metrics_page import only_metrics
from deployments.listener import App, Listener, ReplicaApp, answer
from deployments.quiet_server import QuietServer
from deployments.streams import TokenStreams
from deployments.stub_generator import StubGenerator
from weir.testing.virtual_time import run


async def probes(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, 200, scope["path"].encode())


async def ask(path: str, kind: str = "http", token: str | None = None) -> list[dict[str, Any]]:
    """What the app sends; a WebSocket is closed by its client at once."""
    sent: list[dict[str, Any]] = []

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    events = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(events)

    headers = [(wire.TOKEN_HEADER.encode(), token.encode())] if token else []
    app = ReplicaApp(probes, TokenStreams(StubGenerator(0.0)), "secret")
    await app({"type": kind, "path": path, "headers": headers}, receive, send)
    return sent


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_probes_need_no_token(path: str) -> None:
    start, body = await ask(path)
    assert start["status"] == 200
    assert body["body"] == path.encode()


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/v1/chat/completions", None, 401),
        ("/v1/chat/completions", "guess", 401),
        ("/v1/chat/completions", "secret", 404),
        (wire.PATH, "secret", 404),
    ],
)
async def test_nothing_else_is_served_over_http(path: str, token: str | None, status: int) -> None:
    assert (await ask(path, token=token))[0]["status"] == status


async def test_a_stream_needs_the_token() -> None:
    assert (await ask(wire.PATH, "websocket"))[0] == {"type": "websocket.close", "code": 4401}
    accepted = (await ask(wire.PATH, "websocket", "secret"))[0]
    assert accepted["type"] == "websocket.accept"


async def test_a_port_that_is_given_is_shared_until_its_holder_ends() -> None:
    """A gateway starts while the one before it on the same machine ends."""

    def named(name: bytes) -> App:
        async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
            del scope, receive
            await answer(send, 200, name)

        return app

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    old = Listener(named(b"old"), "127.0.0.1", port)
    new = Listener(named(b"new"), "127.0.0.1", port)
    await old.start()
    await new.start()
    await old.stop()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as got:
        assert await got.read() == b"new"
    await new.stop()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/metrics", 200), ("/ready", 200), ("/health", 200), ("/v1/models", 404), ("/admin/v1", 404)],
)
async def test_a_gateways_metrics_port_has_nothing_else(path: str, status: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await only_metrics(probes)({"type": "http", "path": path, "headers": []}, None, send)
    assert sent[0]["status"] == status


class _Ticking(QuietServer):
    """Counts how often it looks whether it is to end."""

    ticks = 0

    async def on_tick(self, counter: int) -> bool:
        self.ticks += 1
        return await super().on_tick(counter)


def test_a_server_that_waits_looks_once_a_second_and_is_told_to_end() -> None:
    async def main() -> float:
        config = uvicorn.Config(probes, log_config=None)
        config.load()
        server = _Ticking(config)
        waiting = asyncio.create_task(server.main_loop())
        await asyncio.sleep(10.5)
        assert server.ticks == 11
        loop = asyncio.get_running_loop()
        told_s = loop.time()
        server.handle_exit(15, None)
        await waiting
        return loop.time() - told_s

    assert run(main()) < 0.1
