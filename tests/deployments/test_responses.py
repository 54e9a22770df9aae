"""``/v1/responses`` over real sockets: kept, gone on from, run in the background."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types.responses import Response, ResponseItemList

from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.responses import Responses
from deployments.testing.world import KEY, http_world
from weir.errors import BadRequestError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.responses import ResponsesSettings
from weir.tenancy import hash_key

PATH = "/v1/responses"
HEADERS = {"authorization": f"Bearer {KEY}"}


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


async def _post(world: Any, replica: Any, said: str, **body: Any) -> dict[str, Any]:
    """A response whose engine says that."""
    name = f"r{len(replica.generator.requests)}"
    pending = asyncio.ensure_future(world.post({"input": "hello", "id": name, **body}, path=PATH))
    await _until(lambda: name in replica.generator.started)
    replica.generator.end(name, said)
    response = await pending
    assert response.status == 200, await response.text()
    return dict(await response.json())


async def _get(world: Any, path: str, key: str = KEY, method: str = "GET") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with world.session.request(method, world.url + PATH + path, headers=headers) as response:
        return response.status, await response.json()


async def test_a_response_is_kept_and_gone_on_from(world: Any) -> None:
    replica = await world.add_replica("a")
    first = await _post(world, replica, "world", instructions="system")
    assert Response.model_validate(first).output_text == "world"
    assert await _get(world, f"/{first['id']}") == (200, first)
    second = await _post(world, replica, "b", previous_response_id=first["id"], input="world")
    assert second["previous_response_id"] == first["id"]
    prompt = replica.generator.requests["r1"].prompt
    words = [
        "user",
        ":",
        "hello",
        "assistant",
        ":",
        "world",
        "user",
        ":",
        "world",
        "assistant",
        ":",
    ]
    ids = {"user": 1, "system": 2, "assistant": 3, ":": 4, "hello": 5, "world": 6}
    assert prompt == [ids[word] for word in words], "without the earlier instructions"
    status, listed = await _get(world, f"/{second['id']}/input_items?order=asc")
    assert status == 200
    assert [i.role for i in ResponseItemList.model_validate(listed).data] == [  # type: ignore[union-attr]
        "user",
        "assistant",
        "user",
    ]
    page = (await _get(world, f"/{second['id']}/input_items?limit=2"))[1]
    assert (page["has_more"], page["data"]) == (True, listed["data"][:0:-1])
    rest = (await _get(world, f"/{second['id']}/input_items?after={page['last_id']}"))[1]
    assert (rest["has_more"], rest["data"]) == (False, listed["data"][:1])


async def test_a_streamed_response_is_kept_before_its_end_is_told(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({"input": "hello", "stream": True}, path=PATH))
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "a")
    response = await pending
    replica.generator.end("r1", "b", count=2)
    raw = (await response.read()).decode()
    ended = json.loads(raw.strip().rpartition("\ndata: ")[2])["response"]
    assert await _get(world, f"/{ended['id']}") == (200, ended)
    assert Response.model_validate(ended).output_text == "ab"


async def test_what_is_not_to_be_kept_is_not(world: Any) -> None:
    replica = await world.add_replica("a")
    made = await _post(world, replica, "b", store=False)
    assert (await _get(world, f"/{made['id']}"))[0] == 404
    response = await world.post({"input": "x", "previous_response_id": made["id"]}, path=PATH)
    error = (await response.json())["error"]
    assert response.status == 400
    assert error["code"] == "previous_response_not_found"
    assert error["param"] == "previous_response_id"


async def test_deleted_is_gone_and_others_see_nothing(world: Any) -> None:
    replica = await world.add_replica("a")
    made = await _post(world, replica, "b")
    for path, method in (("", "GET"), ("/input_items", "GET"), ("", "DELETE"), ("/cancel", "POST")):
        assert (await _get(world, f"/{made['id']}{path}", "nobody", method))[0] == 401
        assert (await _get(world, f"/resp_x{path}", method=method))[0] == 404
    status, told = await _get(world, f"/{made['id']}", method="DELETE")
    assert (status, told["deleted"]) == (200, True)
    assert (await _get(world, f"/{made['id']}"))[0] == 404


async def _background(world: Any, name: str = "r1", **body: Any) -> dict[str, Any]:
    asked = {"input": "hello", "background": True, "id": name, **body}
    response = await world.post(asked, path=PATH)
    assert response.status == 200, await response.text()
    return dict(await response.json())


async def _ended(world: Any, response_id: str) -> Any:
    async with asyncio.timeout(10):
        while True:
            told = (await _get(world, f"/{response_id}"))[1]
            if told["status"] != "in_progress":
                return told
            await asyncio.sleep(0.01)


async def test_a_response_in_the_background(world: Any) -> None:
    replica = await world.add_replica("a")
    begun = await _background(world)
    assert (begun["status"], begun["background"]) == ("in_progress", True)
    response = await world.post(
        {"input": "x", "previous_response_id": begun["id"], "id": "r2"}, path=PATH
    )
    assert response.status == 400, "it has not ended"
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.end("r1", "done")
    ended = await _ended(world, begun["id"])
    assert Response.model_validate(ended).output_text == "done"
    assert ended["status"] == "completed"
    assert (await _get(world, f"/{begun['id']}/cancel", method="POST"))[1] == ended
    sent = world.gateway.metrics.output_tokens.labels("t", "m")._value.get()
    assert sent == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_one_in_the_background_is_cancelled(world: Any, method: str) -> None:
    replica = await world.add_replica("a")
    begun = await _background(world)
    await _until(lambda: "r1" in replica.generator.started)
    path = "/cancel" if method == "POST" else ""
    status, told = await _get(world, f"/{begun['id']}{path}", method=method)
    assert status == 200
    await _until(lambda: replica.generator.aborted == ["r1"])
    await _until(lambda: world.outstanding() == 0)
    status, found = await _get(world, f"/{begun['id']}")
    if method == "POST":
        assert told["status"] == found["status"] == "cancelled"
    else:
        assert status == 404


async def test_only_the_background_can_be_cancelled(world: Any) -> None:
    replica = await world.add_replica("a")
    made = await _post(world, replica, "b")
    assert (await _get(world, f"/{made['id']}/cancel", method="POST"))[0] == 400


async def test_one_that_fails_says_so(world: Any) -> None:
    replica = await world.add_replica("a")
    replica.generator.refuse = BadRequestError("does not like it")
    begun = await _background(world)
    ended = await _ended(world, begun["id"])
    assert ended["status"] == "failed"
    assert ended["error"] == {"code": "invalid_prompt", "message": "does not like it"}
    Response.model_validate(ended)


async def test_a_wrong_request_is_refused_before_it_goes_to_the_background(world: Any) -> None:
    for body, status in (({"include": ["nonsense"]}, 400), ({"model": "nobody"}, 404)):
        asked = {"input": "x", "background": True, **body}
        response = await world.post(asked, path=PATH)
        assert response.status == status


async def test_another_gateway_sees_cancels_and_notices_a_loss(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.responses._TOUCH_S", 0.05)
    replica = await world.add_replica("a")
    other = Responses(world.gateway, world.responses.store, ResponsesSettings())
    tenant = world.gateway.directory.authenticate(f"Bearer {KEY}").tenant
    begun = await _background(world)
    await _until(lambda: "r1" in replica.generator.started)
    assert (await other.find(tenant, begun["id"])).open
    assert (await other.cancel(tenant, begun["id"]))["status"] == "cancelled"
    await _until(lambda: replica.generator.aborted == ["r1"])
    lost = await _background(world, "r2")
    monkeypatch.setattr("deployments.gateway.responses.LOST_S", -1.0)
    assert (await other.find(tenant, lost["id"])).response["status"] == "failed"
    await _until(lambda: replica.generator.aborted == ["r1", "r2"])
    await _until(lambda: world.outstanding() == 0)


async def test_what_runs_when_the_gateway_stops_has_failed(world: Any) -> None:
    replica = await world.add_replica("a")
    begun = await _background(world)
    await _until(lambda: "r1" in replica.generator.started)
    await world.responses.aclose()
    assert (await _ended(world, begun["id"]))["status"] == "failed"
    await _until(lambda: world.outstanding() == 0)


async def test_a_client_that_leaves_its_background_response_does_not_end_it(world: Any) -> None:
    """It has left before it could be answered: while the response was being kept."""
    replica = await world.add_replica("a")
    store, keeping, go_on = world.responses.store, asyncio.Event(), asyncio.Event()
    put = store.put

    async def slow_put(tenant: str, stored: Any, ttl_s: float) -> None:
        keeping.set()
        await go_on.wait()
        await put(tenant, stored, ttl_s)

    store.put = slow_put
    pending = asyncio.ensure_future(_background(world))
    await keeping.wait()
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    go_on.set()
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.end("r1", "x")
    await _until(lambda: world.outstanding() == 0)


async def test_others_find_nothing_and_too_many_in_the_background_are_refused(
    encoder: PromptEncoder,
) -> None:
    tenants = tuple(TenantSettings(id=t, key_sha256=(hash_key(t),)) for t in ("one", "two"))
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=tenants,
        responses=ResponsesSettings(max_background_per_tenant=1),
    )
    async with http_world(settings, {"m": encoder}) as world:
        replica = await world.add_replica("a")
        asked = {"input": "hello", "background": True}
        one = {"authorization": "Bearer one"}
        first = await world.post({**asked, "id": "r1"}, path=PATH, **one)
        begun = await first.json()
        second = await world.post({**asked, "id": "r2"}, path=PATH, **one)
        assert (second.status, second.headers["retry-after"]) == (429, "1")
        await _until(lambda: "r1" in replica.generator.started)
        for path, method in (
            ("", "GET"),
            ("/input_items", "GET"),
            ("", "DELETE"),
            ("/cancel", "POST"),
        ):
            assert (await _get(world, f"/{begun['id']}{path}", "two", method))[0] == 404
        gone_on = {"input": "x", "previous_response_id": begun["id"]}
        foreign = await world.post(gone_on, path=PATH, authorization="Bearer two")
        assert (await foreign.json())["error"]["code"] == "previous_response_not_found"
        replica.generator.end("r1", "x")
        await _until(lambda: world.outstanding() == 0)
        third = await world.post({**asked, "id": "r3"}, path=PATH, **one)
        assert third.status == 200


async def test_a_client_that_leaves_ends_its_response(world: Any) -> None:
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({"input": "hello"}, path=PATH))
    await _until(lambda: "r1" in replica.generator.started)
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    await _until(lambda: replica.generator.aborted == ["r1"])
    await _until(lambda: world.outstanding() == 0)
