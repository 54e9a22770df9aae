"""The application, fuzzed from its own description: no server error, answers as described."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.control.app import OPENAPI_PATH
from deployments.redis_server import RedisServer
from tests.deployments.control.world import World, free_port, running, settings_of
from weir.tenancy import Role

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis: without one, what needs it would be a 503."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    server = RedisServer(folder, port, folder / "log")
    server.start()
    yield port
    server.stop()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, redis_port: int
) -> Iterator[tuple[str, World]]:
    """The application behind a real server, in a thread of its own."""
    file = tmp_path_factory.mktemp("fuzz") / "weir.db"
    file.write_bytes(empty_database.read_bytes())
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # before anybody asks
    held: dict[str, Any] = {}
    ready = threading.Event()

    async def serve() -> None:
        config = settings_of()
        redis = config.redis.model_copy(update={"port": redis_port})
        config = config.model_copy(update={"redis": redis})
        async with running(f"sqlite:///{file}", config) as world:
            server = uvicorn.Server(uvicorn.Config(world.app, log_level="warning", lifespan="off"))
            held.update(server=server, world=world)
            ready.set()
            await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", held["world"]
    held["server"].should_exit = True
    thread.join()
    listener.close()


def test_no_input_breaks_any_operation(served: tuple[str, World]) -> None:
    url, world = served
    api = schemathesis.openapi.from_url(f"{url}{OPENAPI_PATH}")
    headers = {"authorization": f"Bearer {world.keys['acme', Role.ADMIN]}", "if-match": "*"}
    count = 0
    for result in api.get_all_operations():
        count += 1
        _fuzz(result.ok(), headers)
    assert count > 40


def _fuzz(operation: Any, headers: dict[str, str]) -> None:
    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=operation.as_strategy())
    def no_input_breaks_it(case: Any) -> None:
        if "tenant" in (case.path_parameters or {}) and len(str(case.body)) % 2:
            case.path_parameters["tenant"] = "other"
        if operation.method.upper() == "DELETE" and case.formatted_path.endswith("/acme"):
            return
        case.call_and_validate(checks=_CHECKS, headers=headers, timeout=60)

    no_input_breaks_it()
