"""Batch jobs from the outside, by the official client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai
import pytest
from sqlalchemy import update

from deployments.batches.backlog import backlogs
from deployments.batches.tables import batches
from deployments.testing.counting import CountingGenerator
from deployments.testing.world import World
from tests.deployments.batches.worlds import (
    CHAT,
    Gateways,
    batches_of,
    chat_line,
    ended,
    jsonl,
    lines_of,
    seen,
    submit,
)
from weir.database import open_database, writing
from weir.settings.batches import BatchesSettings

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3},
    "/v1/completions": {"prompt": "hello world", "max_tokens": 3},
    "/v1/responses": {"input": "hello", "max_output_tokens": 3},
    "/v1/embeddings": {"input": ["hello", "world"]},
}


@pytest.mark.parametrize("endpoint", BODIES)
async def test_the_official_clients_example_runs(gateways: Gateways, endpoint: str) -> None:
    client = gateways.client(await gateways.start(embeds=endpoint == "/v1/embeddings"))
    content = jsonl(
        {
            "custom_id": f"request-{i}",
            "method": "POST",
            "url": endpoint,
            "body": {"model": "m", **BODIES[endpoint]},
        }
        for i in range(6)
    )
    batch = await submit(client, content, endpoint, metadata={"run": "nightly"})
    assert batch.status == "validating"
    batch = await ended(client, batch.id)
    assert batch.status == "completed"
    assert batch.errors is None
    assert batch.error_file_id is None
    assert batch.model == "m"
    assert batch.metadata == {"run": "nightly"}
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (6, 6, 0)
    assert batch.usage is not None
    assert batch.usage.input_tokens > 0
    lines = await lines_of(client, batch.output_file_id)
    assert sorted(line["custom_id"] for line in lines) == [f"request-{i}" for i in range(6)]
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert {line["error"] for line in lines} == {None}
    direct = await client.post(
        endpoint.removeprefix("/v1"), body={"model": "m", **BODIES[endpoint]}, cast_to=object
    )
    assert isinstance(direct, dict)
    for line in lines:
        assert set(line["response"]["body"]) == set(direct)
        usage = line["response"]["body"]["usage"]
        assert usage["total_tokens"] == direct["usage"]["total_tokens"]


async def test_each_line_has_the_answer_to_its_own_request(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start())
    batch = await submit(client, jsonl(chat_line(i) for i in range(20)))
    batch = await ended(client, batch.id)
    lines = await lines_of(client, batch.output_file_id)
    assert len(lines) == 20
    for line in lines:
        asked = chat_line(int(line["custom_id"][1:]))["body"]
        answer = await client.chat.completions.create(**asked)
        assert line["response"]["body"]["choices"][0]["message"]["content"] == (
            answer.choices[0].message.content
        )


async def test_lines_run_in_the_batch_class_as_a_part_of_their_batch(gateways: Gateways) -> None:
    world = await gateways.start()
    seen_requests = []
    handle = world.gateway.handle

    async def watched(dialect: Any, door: Any, sink: Any) -> None:
        seen_requests.append(door)
        await handle(dialect, door, sink)

    world.gateway.handle = watched  # type: ignore[method-assign]
    client = gateways.client(world)
    batch = await ended(client, (await submit(client, jsonl([chat_line(1)]))).id)
    assert batch.status == "completed"
    door = seen_requests[0]
    assert door.batch == batch.id
    assert door.authenticated.tenant.id == "one"
    assert door.header(b"x-weir-priority") == "batch"
    assert door.header(b"x-request-id") == f"{batch.id}-1"


async def test_what_is_left_is_told_for_each_model_that_lines_name(gateways: Gateways) -> None:
    world = await gateways.start(replicas=0)
    client = gateways.client(world)
    lines = [chat_line(number, "m" if number % 3 else "other") for number in range(12)]
    batch = await submit(client, jsonl(lines))
    batch = await seen(client, batch.id, lambda b: b.status == "in_progress")
    assert batch.model is None
    database = open_database(f"sqlite:///{gateways.folder / 'weir.db'}")
    left = backlogs(database, {"m", "other"}, time.time())
    assert {name: each.lines for name, each in left.items()} == {"m": 8, "other": 4}
    await world.add_replica("r", CountingGenerator(0.001, gateways.meter), max_model_len=512)
    await seen(client, batch.id, lambda b: _completed(b) == 8)
    left = backlogs(database, {"m", "other"}, time.time())
    assert {name: each.lines for name, each in left.items()} == {"other": 4}
    database.dispose()


async def test_a_line_that_fails_is_in_the_error_file(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start())
    lines = [chat_line(0), chat_line(1, max_tokens=5000), chat_line(2)]
    batch = await ended(client, (await submit(client, jsonl(lines))).id)
    assert batch.status == "completed"
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    assert len(await lines_of(client, batch.output_file_id)) == 2
    (failed,) = await lines_of(client, batch.error_file_id)
    assert failed["custom_id"] == "c1"
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["code"] == "context_length_exceeded"


async def test_what_is_refused_for_now_is_tried_again(gateways: Gateways) -> None:
    world = await gateways.start(replicas=0)
    client = gateways.client(world)
    batch = await submit(client, jsonl(chat_line(i) for i in range(3)))
    await seen(client, batch.id, lambda b: b.status == "in_progress")
    await asyncio.sleep(0.2)
    await world.add_replica("late", CountingGenerator(0.001), max_model_len=512)
    batch = await ended(client, batch.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 3


async def test_a_killed_gateways_lines_go_on_elsewhere_and_are_published_once(
    gateways: Gateways,
) -> None:
    """Gateways die in the middle of a job, without a word, four times."""
    total = 60
    first = await gateways.start(interval_s=0.01)
    client = gateways.client(first)
    batch = await submit(client, jsonl(chat_line(i) for i in range(total)))
    for done in (5, 15, 25, 35):
        await seen(client, batch.id, lambda b, d=done: _completed(b) >= d)  # type: ignore[misc]
        _kill(first)
        first = await gateways.start(interval_s=0.01)
        client = gateways.client(first)
    batch = await ended(client, batch.id)
    assert batch.status == "completed"
    assert _completed(batch) == total
    lines = await lines_of(client, batch.output_file_id)
    assert sorted(line["custom_id"] for line in lines) == sorted(f"c{i}" for i in range(total))


async def test_a_gateway_that_stops_hands_over_at_once(gateways: Gateways) -> None:
    gateways.batches = BatchesSettings(chunk_lines=4, lease_s=600)
    first = await gateways.start(interval_s=0.01)
    client = gateways.client(first)
    batch = await submit(client, jsonl(chat_line(i) for i in range(40)))
    await seen(client, batch.id, lambda b: _completed(b) >= 4)
    second = await gateways.start()
    await batches_of(first).runner.aclose()
    client = gateways.client(second)
    batch = await ended(client, batch.id)
    assert _completed(batch) == 40
    assert len(await lines_of(client, batch.output_file_id)) == 40


async def test_what_breaks_off_is_tried_again_when_its_lease_is_over(gateways: Gateways) -> None:
    world = await gateways.start()
    storage, faults = batches_of(world).files.storage, [2]
    read = storage.read

    def fails_twice(name: str, start: int, end: int) -> bytes:
        if faults[0] and start:  # a chunk that is not the first
            faults[0] -= 1
            raise RuntimeError("a fault")
        return read(name, start, end)

    storage.read = fails_twice  # type: ignore[method-assign]
    client = gateways.client(world)
    batch = await ended(client, (await submit(client, jsonl(chat_line(i) for i in range(12)))).id)
    assert batch.status == "completed"
    assert len(await lines_of(client, batch.output_file_id)) == 12
    assert faults == [0]


async def test_cancelling_keeps_what_was_computed(gateways: Gateways) -> None:
    world = await gateways.start(interval_s=0.02)
    client = gateways.client(world)
    batch = await submit(client, jsonl(few_short_ones(200)))
    await seen(client, batch.id, lambda b: _completed(b) >= 5)
    batch = await client.batches.cancel(batch.id)
    assert batch.status == "cancelling"
    batch = await ended(client, batch.id, limit_s=10.0)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    lines = await lines_of(client, batch.output_file_id)
    assert len(lines) == _completed(batch) >= 5
    assert _completed(batch) < 200
    running = world.replicas[0].generator
    await _until(lambda: running.running == 0)
    with pytest.raises(openai.ConflictError):
        await client.batches.cancel(batch.id)


async def test_what_is_late_is_told_in_the_error_file(gateways: Gateways) -> None:
    world = await gateways.start(interval_s=0.02)
    client = gateways.client(world)
    batch = await submit(client, jsonl(few_short_ones(100)))
    await seen(client, batch.id, lambda b: _completed(b) >= 5)
    _expire(gateways, batch.id)
    batch = await ended(client, batch.id)
    assert batch.status == "expired"
    done = await lines_of(client, batch.output_file_id)
    late = await lines_of(client, batch.error_file_id)
    counts = batch.request_counts
    assert counts is not None
    assert (counts.completed, counts.failed) == (len(done), len(late))
    assert len(done) >= 5
    ids = [line["custom_id"] for line in (*done, *late)]
    assert sorted(ids) == sorted(f"c{i}" for i in range(100))
    assert {line["error"]["code"] for line in late} == {"batch_expired"}


async def test_another_tenants_files_and_batches_do_not_exist(gateways: Gateways) -> None:
    world = await gateways.start()
    mine, theirs = gateways.client(world), gateways.client(world, "two")
    batch = await ended(mine, (await submit(mine, jsonl([chat_line(1)]))).id)
    assert batch.output_file_id is not None
    for file_id in (batch.input_file_id, batch.output_file_id):
        for attempt in (
            theirs.files.retrieve(file_id),
            theirs.files.content(file_id),
            theirs.files.delete(file_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
    for asking in (theirs.batches.retrieve(batch.id), theirs.batches.cancel(batch.id)):
        with pytest.raises(openai.NotFoundError):
            await asking
    with pytest.raises(openai.BadRequestError) as refused:
        await theirs.batches.create(
            input_file_id=batch.input_file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )
    assert refused.value.param == "input_file_id"
    assert [file async for file in theirs.files.list()] == []
    assert [each async for each in theirs.batches.list()] == []
    with pytest.raises(openai.BadRequestError):
        await theirs.batches.list(after=batch.id)


async def test_a_model_that_the_tenant_may_not_use_fails_the_batch(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start(), "two")
    batch = await ended(client, (await submit(client, jsonl([chat_line(1, "other")]))).id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(e.code, e.line, e.param) for e in batch.errors.data] == [
        ("model_not_found", 1, "body.model")
    ]


DAMAGED: dict[str, tuple[bytes, list[tuple[str, int | None]]]] = {
    "empty": (b"", [("empty_file", None)]),
    "blank lines": (b"\n \n\n", [("empty_file", None)]),
    "not UTF-8": (
        jsonl([chat_line(1)]) + b'{"custom_id": "\xff"}\n',
        [("invalid_json_line", 2)],
    ),
    "no JSON": (b"hello\n" + jsonl([chat_line(1)]), [("invalid_json_line", 1)]),
    "the same id twice": (
        jsonl([chat_line(1), chat_line(2), chat_line(1)]),
        [("duplicate_custom_id", 3)],
    ),
    "another url": (
        jsonl([{**chat_line(1), "url": "/v1/embeddings"}]),
        [("invalid_url", 1)],
    ),
    "another method": (jsonl([{**chat_line(1), "method": "GET"}]), [("invalid_method", 1)]),
    "a stream": (jsonl([chat_line(1, stream=True)]), [("invalid_request", 1)]),
    "a body that is wrong": (
        jsonl([chat_line(1, temperature="hot")]),
        [("invalid_value", 1)],
    ),
    "a long line": (
        jsonl([chat_line(0), chat_line(1, padding="x" * 30_000), chat_line(2)]),
        [("line_too_long", 2)],
    ),
    "too many lines": (jsonl(chat_line(i) for i in range(13)), [("too_many_requests", 13)]),
}


@pytest.mark.parametrize("case", DAMAGED)
async def test_a_damaged_input_fails_the_batch_and_says_where(
    gateways: Gateways, case: str
) -> None:
    content, errors = DAMAGED[case]
    gateways.batches = BatchesSettings(max_lines=12)
    client = gateways.client(await gateways.start())
    batch = await ended(client, (await submit(client, content)).id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(e.code, e.line) for e in batch.errors.data] == errors
    assert batch.output_file_id is None
    assert gateways.meter.streams == []


async def test_what_is_asked_of_a_batch_is_checked(gateways: Gateways) -> None:
    world = await gateways.start()
    client = gateways.client(world)
    file = await client.files.create(file=("x.jsonl", jsonl([chat_line(1)])), purpose="batch")
    good: dict[str, Any] = {
        "input_file_id": file.id,
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    for change, param in (
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "5m"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, None),
        ({"metadata": {"x": "y" * 600}}, None),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.batches.create(**{**good, **change})
        if param is not None:
            assert refused.value.param == param
    with pytest.raises(openai.PermissionDeniedError):
        await submit(gateways.client(world, "urgent"), jsonl([chat_line(1)]))


async def test_a_tenant_has_so_many_batches_at_a_time(gateways: Gateways) -> None:
    gateways.batches = BatchesSettings(max_active_per_tenant=2)
    world = await gateways.start(replicas=0)
    client = gateways.client(world)
    for _ in range(2):
        await submit(client, jsonl([chat_line(1)]))
    with pytest.raises(openai.RateLimitError):
        await submit(client, jsonl([chat_line(1)]))
    await submit(gateways.client(world, "two"), jsonl([chat_line(1)]))


async def test_batches_are_listed_newest_first_and_in_pages(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start())
    made = [(await submit(client, jsonl([chat_line(i)]))).id for i in range(5)]
    listed = [batch.id async for batch in client.batches.list(limit=2)]
    assert listed == made[::-1]


async def test_the_input_of_a_running_batch_cannot_be_deleted(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start(interval_s=0.05))
    batch = await submit(client, jsonl(chat_line(i, max_tokens=40) for i in range(4)))
    with pytest.raises(openai.ConflictError) as refused:
        await client.files.delete(batch.input_file_id)
    assert refused.value.code == "file_in_use"
    await ended(client, batch.id)
    assert (await client.files.delete(batch.input_file_id)).deleted


async def test_a_batch_whose_key_is_gone_is_cancelled(gateways: Gateways) -> None:
    world = await gateways.start(interval_s=0.02)
    client = gateways.client(world)
    batch = await submit(client, jsonl(few_short_ones(40)))
    await seen(client, batch.id, lambda b: _completed(b) >= 1)
    runner = batches_of(world).runner
    running = runner._with
    object.__setattr__(running, "find_caller", lambda tenant, key: None)
    batch = await ended(client, batch.id)
    assert batch.status == "cancelled"


async def test_parts_are_removed_when_a_batch_has_ended(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start())
    batch = await ended(client, (await submit(client, jsonl(chat_line(i) for i in range(9)))).id)
    await _until(lambda: not list((gateways.folder / "files" / "batches").glob("*/*")))
    kept = {path.name for path in (gateways.folder / "files" / "files").iterdir()}
    assert kept == {batch.input_file_id, batch.output_file_id}


def few_short_ones(count: int) -> list[dict[str, Any]]:
    """Lines of which the first eight end soon, and the others take seconds."""
    return [chat_line(i, max_tokens=4 if i < 8 else 300) for i in range(count)]


def _completed(batch: Any) -> int:
    return int(batch.request_counts.completed) if batch.request_counts else 0


def _kill(world: World) -> None:
    """As SIGKILL: nothing of it runs any more, nothing is handed over."""

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    batches = batches_of(world)
    for holder, name in ((batches.threads, "run"), (batches.runner, "_run_in")):
        setattr(holder, name, never)
    tasks = [task for _, task in batches.runner._chunks.values()]
    for task in (*tasks, *batches.runner._always):
        task.cancel()
    world.batches = None


def _expire(gateways: Gateways, batch_id: str) -> None:
    engine = open_database(f"sqlite:///{gateways.folder / 'weir.db'}")
    with writing(engine) as connection:
        connection.execute(update(batches).where(batches.c.id == batch_id).values(expires_s=1.0))
    engine.dispose()


async def _until(condition: Any, limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.02)
