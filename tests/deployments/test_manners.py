"""The whole door: clients, a real HAProxy, the gateway behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import httpx
import openai
import pytest

from deployments.gateway.dialects import DIALECTS
from deployments.haproxy import FrontDoor
from deployments.haproxy_config import Target
from deployments.testing.world import KEY, TOKEN
from weir.settings.server import CorsSettings, MetricsSettings
from weir.settings.tree import ServerSettings

HELLO: dict[str, Any] = {
    "model": "m",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "hello world"}],
}
CHAT = "/v1/chat/completions"
BEARER = {"authorization": f"Bearer {KEY}"}
PAGE = "http://localhost:3000"
PAGES = ("/v1/models", "/health", "/ready")


@dataclass
class Door:
    """``url`` has no slash at its end."""

    world: Any
    url: str
    front: FrontDoor
    client: httpx.AsyncClient
    metrics_url: str

    async def raw(self, request: bytes) -> bytes:
        """What comes back on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.front.port)
        answer = b""
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                while not _is_whole(answer) and (part := await reader.read(65536)):
                    answer += part
            return answer
        finally:
            writer.close()

    async def answered(self, pending: Any, text: str = "hi") -> httpx.Response:
        """The answer of a request, which the first replica generates."""
        task = asyncio.ensure_future(pending)
        generator = self.world.replicas[0].generator
        known = set(generator.started)
        async with asyncio.timeout(20):
            while not (fresh := set(generator.started) - known):
                if task.done():
                    break
                await asyncio.sleep(0.005)
            for name in fresh:
                generator.end(name, text, count=1)
            return await task


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and (length is None or len(body) >= int(length[1]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def door(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Door]:
    """Parametrised with further fields of ``server:``."""
    monkeypatch.setenv("WEIR_INTERNAL_TOKEN", TOKEN)
    metrics = MetricsSettings(port=_free_port())
    server = ServerSettings(port=_free_port(), metrics=metrics, **getattr(request, "param", {}))
    front = FrontDoor(server, tmp_path / "haproxy", one_active=True)
    await asyncio.to_thread(front.start)
    try:
        port = urlsplit(world.url).port
        await asyncio.to_thread(front.route_to, [Target("one", "127.0.0.1", port)])
        url = f"http://127.0.0.1:{front.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            yield Door(world, url, front, client, f"http://127.0.0.1:{metrics.port}")
    finally:
        await asyncio.to_thread(front.stop)


# Web pages


async def test_preflight_requests_on_every_path(door: Door) -> None:
    asked = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }
    paths = [dialect.path for dialect in DIALECTS] + [*PAGES, "/v1/responses/r/cancel", "/nothing"]
    for path in paths:
        answer = await door.client.options(path, headers=asked)
        told = answer.headers
        assert (answer.status_code, answer.content) == (204, b""), path
        assert told["access-control-allow-origin"] == PAGE
        assert told["access-control-allow-headers"] == asked["access-control-request-headers"]
        assert {"GET", "POST", "DELETE"} <= set(told["access-control-allow-methods"].split(", "))
        assert told["access-control-max-age"] == "600"


async def test_foreign_pages_are_not_let_in(door: Door) -> None:
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer = await door.client.options(CHAT, headers=asked)
        assert answer.status_code == 405
        told = (await door.client.get("/health", headers={"origin": origin})).headers
        assert not [name for name in (*answer.headers, *told) if name.startswith("access-control")]


async def test_a_page_may_read_answers_streams_and_errors(door: Door) -> None:
    await door.world.add_replica("a")
    headers = {**BEARER, "origin": PAGE}
    whole = await door.answered(door.client.post(CHAT, json=HELLO, headers=headers))
    body = {**HELLO, "stream": True}
    stream = await door.answered(door.client.post(CHAT, json=body, headers=headers))
    refused = await door.client.post(CHAT, json=HELLO, headers={"origin": PAGE})
    await asyncio.to_thread(door.front.close)
    closed = await door.client.post(CHAT, json=HELLO, headers=headers)
    answers = (whole, stream, refused, closed)
    assert [a.status_code for a in answers] == [200, 200, 401, 503]
    assert stream.headers["content-type"].startswith("text/event-stream")
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "*"} <= set(exposed)
        assert answer.headers["vary"] == "Origin"
    assert "x-weir-replica" in whole.headers


@pytest.mark.parametrize(
    "door",
    [{"cors": CorsSettings(origins=("https://*.shop.example",), headers=("authorization",))}],
    indirect=True,
)
async def test_origins_and_headers_are_settings(door: Door) -> None:
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "x-other"}
    for origin, status in (
        ("https://chat.shop.example", 204),
        ("https://shop.example", 404),
        ("https://chat.shop.example:8443", 404),
        ("https://chat.shopxexample", 404),
        (PAGE, 404),
    ):
        answer = await door.client.options("/none", headers={**asked, "origin": origin})
        assert answer.status_code == status, origin
        allowed = "authorization" if status == 204 else None
        assert answer.headers.get("access-control-allow-headers") == allowed


@pytest.mark.parametrize("door", [{"cors": CorsSettings(origins=())}], indirect=True)
async def test_without_origins_there_is_no_cors(door: Door) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    answer = await door.client.options(CHAT, headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Paths and methods


async def test_head_is_get_without_a_body(door: Door) -> None:
    for path in (*PAGES, "/metrics", "/v1/models/m", "/openapi.json", "/nothing", CHAT):
        got = await door.client.get(path, headers=BEARER)
        head = await door.client.head(path, headers=BEARER)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        if path != CHAT:  # whose refusal names the method
            assert head.headers["content-length"] == str(len(got.content))


async def test_slashes_at_the_end_and_empty_ones_do_not_matter(door: Door) -> None:
    await door.world.add_replica("a")
    for path in ("/v1/models/", "//v1/models", "/v1//models//", "/health/", "/v1/models/m/"):
        answer = await door.client.get(door.url + path, headers=BEARER)
        assert answer.status_code == 200, path
    for path in (f"{CHAT}/", f"/{CHAT}", "/v1//messages", "/v1/responses/"):
        body = {"model": "m", "input": "hello"} if "responses" in path else HELLO
        pending = door.client.post(door.url + path, json=body, headers=BEARER)
        answer = await door.answered(pending)
        assert answer.status_code == 200, (path, answer.text)
    lost = await door.client.get("/v1/models//none/", headers=BEARER)
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "model_not_found")


# Bodies


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "GZIP", "deflate", "identity"])
async def test_compressed_bodies(door: Door, name: str) -> None:
    await door.world.add_replica("a")
    raw = json.dumps(HELLO).encode()
    compress = {"deflate": zlib.compress, "identity": bytes}.get(name, gzip.compress)
    headers = {**BEARER, "content-type": "application/json", "content-encoding": name}
    pending = door.client.post(CHAT, content=compress(raw), headers=headers)
    assert (await door.answered(pending)).json()["choices"][0]["message"]["content"] == "hi"


async def _refusal(door: Door, content: Any, **headers: str) -> tuple[int, str]:
    told = {**BEARER, "content-type": "application/json", **headers}
    answer = await door.client.post(CHAT, content=content, headers=told)
    return answer.status_code, answer.json()["error"]["param"]


async def test_compressed_bodies_that_are_refused(door: Door) -> None:
    named = {"content-encoding": "gzip"}
    whole = gzip.compress(json.dumps(HELLO).encode())
    encoding = "Content-Encoding"
    assert await _refusal(door, b"x", **{"content-encoding": "br"}) == (415, encoding)
    assert await _refusal(door, b"x", **{"content-encoding": "gzip, gzip"}) == (415, encoding)
    assert await _refusal(door, whole[:-12], **named) == (400, encoding)
    assert await _refusal(door, b"{}", **named) == (400, encoding)
    assert await _refusal(door, gzip.compress(b""), **named) == (400, None)
    bomb = gzip.compress(b" " * 9_000_000)
    assert len(bomb) < 10_000
    assert await _refusal(door, bomb, **named) == (413, "body")
    assert await _refusal(door, gzip.compress(b"") * 400, **named) == (400, encoding)


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 1000


async def test_a_body_that_is_too_large_is_a_413_however_it_is_framed(door: Door) -> None:
    assert await _refusal(door, b" " * 20_000) == (413, "body")
    assert await _refusal(door, _pieces(20)) == (413, "body")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_writes_all_before_it_reads_gets_its_answer(
    door: Door, chunked: bool
) -> None:
    """Its body is much more than fits into the buffers in between."""
    sent = BEARER | {"content-type": "application/json"}
    sent |= {"transfer-encoding": "chunked"} if chunked else {"content-length": "8000000"}

    def post(headers: dict[str, str], connection: HTTPConnection) -> int:
        body = (b" " * 10_000 for _ in range(800))
        connection.request("POST", CHAT, body, headers, encode_chunked=chunked)
        with connection.getresponse() as answer:
            assert "message" in json.load(answer)["error"]
            return answer.status

    connection = HTTPConnection("127.0.0.1", door.front.port, timeout=20)
    try:
        for _ in range(3):
            assert await asyncio.to_thread(post, sent, connection) == 413
        strange = {**sent, "authorization": "Bearer weir_nobody"}
        assert await asyncio.to_thread(post, strange, connection) == 401
    finally:
        connection.close()


async def test_a_byte_order_mark_is_no_fault(door: Door) -> None:
    await door.world.add_replica("a")
    headers = {**BEARER, "content-type": "application/json"}
    content = b"\xef\xbb\xbf" + json.dumps(HELLO).encode()
    answer = await door.answered(door.client.post(CHAT, content=content, headers=headers))
    assert answer.status_code == 200


# Headers


async def test_a_request_has_one_id_everywhere(door: Door) -> None:
    await door.world.add_replica("a")
    for given in ("mine-1", b"caf\xe9", "x" * 129, "with spaces", ""):
        headers = [(b"authorization", BEARER["authorization"].encode())]
        headers.append((b"x-request-id", given if isinstance(given, bytes) else given.encode()))
        pending = door.client.post(CHAT, json=HELLO, headers=headers)
        answer = await door.answered(pending)
        named = answer.headers.get_list("x-request-id")
        assert len(named) == 1
        assert answer.json()["id"] == f"chatcmpl-{named[0]}"
        assert answer.headers["request-id"] == named[0]
        assert (named[0] == "mine-1") == (given == "mine-1")


async def test_anthropics_errors_name_the_request(door: Door) -> None:
    key = {"x-api-key": KEY}
    for method, path, headers, status in (
        ("POST", "/v1/messages", {}, 401),
        ("POST", "/v1/messages", key, 503),
        ("POST", "/v1/messages/batches", key, 404),
        ("GET", "/v1/models/none", {**key, "anthropic-version": "2023-06-01"}, 404),
    ):
        answer = await door.client.request(method, path, json=HELLO, headers=headers)
        told = answer.json()
        assert (answer.status_code, told["type"]) == (status, "error"), path
        assert told["request_id"] == answer.headers["request-id"]


async def test_official_clients_know_the_id(door: Door) -> None:
    await door.world.add_replica("a")
    async with (
        openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=KEY, max_retries=0) as ours,
        anthropic.AsyncAnthropic(base_url=door.url, api_key=KEY, max_retries=0) as theirs,
    ):
        chat = await door.answered(ours.chat.completions.create(**HELLO))
        assert chat.id == f"chatcmpl-{chat._request_id}"
        message = await door.answered(theirs.messages.create(**HELLO))
        assert message.id == f"msg_{message._request_id}"
        with pytest.raises(openai.NotFoundError) as lost:
            await ours.models.retrieve("none")
        with pytest.raises(anthropic.BadRequestError) as wrong:
            await theirs.messages.create(**{**HELLO, "max_tokens": -1})
    assert lost.value.request_id
    assert wrong.value.request_id == wrong.value.body["request_id"]  # type: ignore[index]


async def test_a_401_says_how_to_authenticate(door: Door) -> None:
    for path in (CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings"):
        answer = await door.client.post(path, json=HELLO)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v1/models", "/v1/responses/resp_1", "/metrics", "/weir/status"):
        answer = await door.client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_long_headers_work_or_are_a_431(door: Door) -> None:
    long = await door.client.get("/v1/models", headers={**BEARER, "cookie": "c" * 20_000})
    assert long.status_code == 200
    many = {f"x-header-{n}": "v" * 20 for n in range(250)}
    assert (await door.client.get("/v1/models", headers={**BEARER, **many})).status_code == 200
    longer = await door.client.get("/v1/models", headers={**BEARER, "cookie": "c" * 60_000})
    assert longer.status_code == 431
    assert longer.json()["error"]["code"] == "headers_too_large"


# What is not for strangers


async def test_metrics_are_for_their_port_and_their_keys(door: Door) -> None:
    assert (await door.client.get("/metrics")).status_code == 401
    assert (await door.client.get("/metrics", headers=BEARER)).status_code == 401
    own = await door.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    async with httpx.AsyncClient(base_url=door.metrics_url, trust_env=False) as client:
        scraped = await client.get("/metrics")
        elsewhere = await client.get("/v1/models")
        status = await client.get("/weir/status")
        ready = await client.get("/ready")
    for answer in (own, scraped):
        assert answer.status_code == 200
        assert "weir_requests_total" in answer.text
    assert (elsewhere.status_code, status.status_code) == (404, 404)
    assert ready.json()["error"]["message"].endswith("No replica of 'm' is up (1 running).")


async def test_nothing_of_serves_own_is_seen(door: Door) -> None:
    for path in ("/-/routes", "/-/healthz", "/%2D/healthz", "/-%2Fhealthz", "//-/healthz"):
        answer = await door.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b'"code": "not_found"' in answer or b'"code":"not_found"' in answer


async def test_without_a_gateway_every_path_is_a_503(door: Door) -> None:
    await asyncio.to_thread(door.front.close)
    for method, path in (
        ("GET", "/"),
        ("GET", "/ready"),
        ("GET", "/v1/models"),
        ("POST", CHAT),
        ("POST", "/v1/messages"),
        ("DELETE", "/v1/responses/resp_1"),
        ("OPTIONS", CHAT),
    ):
        answer = await door.client.request(method, path, headers=BEARER)
        assert answer.status_code == 503, path
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["code"] == "overloaded"
        assert answer.headers["x-request-id"]


async def test_a_refused_stream_has_its_status(door: Door) -> None:
    body = {**HELLO, "stream": True}
    nobody = await door.client.post(CHAT, json=body, headers=BEARER)
    assert (nobody.status_code, nobody.headers["content-type"]) == (503, "application/json")
    assert nobody.headers["retry-after"]
    wrong = await door.client.post(CHAT, json={**body, "temperature": 9}, headers=BEARER)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "temperature")


# Connections


@pytest.mark.parametrize(
    "door", [{"max_connections": 60, "max_connections_per_source": 20}], indirect=True
)
async def test_one_source_does_not_take_all_connections(door: Door) -> None:
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(40):
        with contextlib.suppress(ConnectionResetError):
            opened.append(await asyncio.open_connection("127.0.0.1", door.front.port))
    ended = [asyncio.ensure_future(reader.read(1)) for reader, _ in opened]
    try:
        _, pending = await asyncio.wait(ended, timeout=2)
        assert len(pending) == 20
        other = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=other, trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{door.front.port}/health")
        assert answer.status_code == 200
    finally:
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for _, writer in opened:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
