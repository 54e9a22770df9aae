"""The application, fuzzed from its own description: no server error, answers as described."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
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
from tests.deployments.control.world import World, running, settings_of
from weir.tenancy import Role

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Any
) -> Iterator[tuple[str, World]]:
    """The application behind a real server, in a thread of its own."""
    file = tmp_path_factory.mktemp("fuzz") / "weir.db"
    file.write_bytes(empty_database.read_bytes())
    ready, done, held = threading.Event(), asyncio.Event(), {}

    async def serve() -> None:
        async with running(f"sqlite:///{file}", settings_of()) as world:
            config = uvicorn.Config(world.app, port=0, log_level="warning", lifespan="off")
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            held.update(
                url=f"http://127.0.0.1:{port}", world=world, loop=asyncio.get_running_loop()
            )
            ready.set()
            await done.wait()
            server.should_exit = True
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield held["url"], held["world"]
    held["loop"].call_soon_threadsafe(done.set)
    thread.join()


def test_no_input_breaks_any_operation(served: tuple[str, World]) -> None:
    url, world = served
    api = schemathesis.openapi.from_url(f"{url}{OPENAPI_PATH}")
    count = 0
    for result in api.get_all_operations():
        operation = result.ok()
        count += 1
        key = world.keys["acme", Role.ADMIN]
        _fuzz(operation, {"authorization": f"Bearer {key}", "if-match": "*"})
    assert count > 30


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
