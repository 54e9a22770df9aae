"""Files from the outside, by the official client and by others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from sqlalchemy import Engine, insert, select, update

from deployments.batches.files import BATCH, FilePage, FileTable, StoredFile
from deployments.batches.jobs import BatchTable
from deployments.batches.pages import byte_range
from deployments.batches.storage import NewContent, open_storage
from deployments.batches.tables import batches, file_usage, files
from deployments.batches.uploads import FormReader, shown_name
from deployments.testing.world import World
from tests.deployments.batches.worlds import Gateways, batches_of
from weir.database import migrate, open_database, reading, writing
from weir.errors import BadRequestError, ConfigError, NotFoundError, RangeError, StorageFullError
from weir.settings.batches import FilesSettings
from weir.settings.tenants import TenantFields
from weir.tenancy.database import TenantStore

CONTENT = bytes(range(256)) * 5000


async def test_a_file_comes_back_as_it_was(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start(0))
    made = await client.files.create(file=("a b.jsonl", CONTENT), purpose="batch")
    assert (made.bytes, made.filename, made.purpose) == (len(CONTENT), "a b.jsonl", "batch")
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 30 * 86_400
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).content == CONTENT
    assert (await client.files.delete(made.id)).deleted
    for gone in (client.files.retrieve(made.id), client.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert not list((gateways.folder / "files" / "files").iterdir())


async def test_how_long_a_file_is_kept_can_be_said(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start(0))
    made = await client.files.create(
        file=("x", b"x"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 3600
    with pytest.raises(openai.BadRequestError):
        await client.files.create(
            file=("x", b"x"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 1},
        )


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", CONTENT[:10]),
        ("bytes=10-", CONTENT[10:]),
        ("bytes=-5", CONTENT[-5:]),
        (f"bytes=5-{10**12}", CONTENT[5:]),
        ("bytes=1-2,4-5", None),
        ("lines=1-2", None),
    ],
)
async def test_a_part_of_a_file_can_be_read(
    gateways: Gateways, asked: str, part: bytes | None
) -> None:
    world = await gateways.start(0)
    client = gateways.client(world)
    made = await client.files.create(file=("x", CONTENT), purpose="batch")
    headers = {"authorization": "Bearer one", "range": asked}
    url = f"{world.url}/v1/files/{made.id}/content"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == (200 if part is None else 206)
        assert await answer.read() == (CONTENT if part is None else part)


def test_a_range_with_nothing_in_it_is_refused() -> None:
    assert byte_range(None, 10) == (0, 10)
    assert byte_range("bytes=3-1", 10) == (0, 10)
    for asked in ("bytes=10-", "bytes=-0", f"bytes={'9' * 30}-"):
        with pytest.raises(RangeError):
            byte_range(asked, 10)


async def test_files_are_listed_in_pages(gateways: Gateways) -> None:
    client = gateways.client(await gateways.start(0))
    made = [(await client.files.create(file=("x", b"x"), purpose="batch")).id for _ in range(5)]
    assert [f.id async for f in client.files.list(limit=2)] == made[::-1]
    assert [f.id async for f in client.files.list(limit=2, order="asc")] == made
    assert [f.id async for f in client.files.list(purpose="batch_output")] == []
    with pytest.raises(openai.BadRequestError):
        await client.files.list(after="file-none")


async def test_too_much_is_refused_and_leaves_nothing(gateways: Gateways) -> None:
    gateways.files = FilesSettings(
        max_file_bytes=100_000, max_files_per_tenant=3, max_bytes_per_tenant=150_000
    )
    world = await gateways.start(0)
    client = gateways.client(world)
    with pytest.raises(openai.APIStatusError) as large:
        await client.files.create(file=("x", b"x" * 100_001), purpose="batch")
    assert large.value.status_code == 413
    await client.files.create(file=("x", b"x" * 100_000), purpose="batch")
    with pytest.raises(openai.PermissionDeniedError) as full:
        await client.files.create(file=("x", b"x" * 60_000), purpose="batch")
    assert full.value.code == "storage_full"
    kept = [await client.files.create(file=("x", b"x"), purpose="batch") for _ in range(2)]
    with pytest.raises(openai.PermissionDeniedError):
        await client.files.create(file=("x", b"x"), purpose="batch")
    await client.files.delete(kept[0].id)
    await client.files.create(file=("x", b"x"), purpose="batch")
    other = gateways.client(world, "two")
    await other.files.create(file=("x", b"x" * 100_000), purpose="batch")
    assert len(list((gateways.folder / "files" / "files").iterdir())) == 4


async def test_a_large_file_whose_length_is_not_told_is_refused(gateways: Gateways) -> None:
    gateways.files = FilesSettings(max_file_bytes=100_000)
    world = await gateways.start(0)

    async def endless() -> Any:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(10_000):
            yield b"x" * 10_000

    headers = {"authorization": "Bearer one", "content-type": "multipart/form-data; boundary=b"}
    url = f"{world.url}/v1/files"
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url, data=endless(), headers=headers) as answer:
                assert answer.status == 413
        except aiohttp.ClientConnectionError:
            pass  # it was still sending when the answer came
    await _empty(gateways)


async def test_a_client_that_leaves_leaves_nothing(gateways: Gateways) -> None:
    world = await gateways.start(0)
    begun = asyncio.Event()

    async def half() -> Any:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        yield b"x" * 3_000_000
        begun.set()
        await asyncio.sleep(60)

    headers = {"authorization": "Bearer one", "content-type": "multipart/form-data; boundary=b"}
    url = f"{world.url}/v1/files"
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(url, data=half(), headers=headers))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await _empty(gateways)


async def _empty(gateways: Gateways) -> None:
    folder = gateways.folder / "files" / "files"
    async with asyncio.timeout(10):
        while folder.exists() and list(folder.iterdir()):  # noqa: ASYNC110 - the gateway's work
            await asyncio.sleep(0.02)
    table = FileTable(open_database(f"sqlite:///{gateways.folder / 'weir.db'}"), gateways.files)
    async with asyncio.timeout(10):
        while True:
            try:
                whole = gateways.files.max_bytes_per_tenant
                made = StoredFile("file-probe", "one", BATCH, "", whole, 0.0, None)
                table.reserve(made)
                return
            except StorageFullError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"purpose": "fine-tune"}, 400),
        ({}, 400),
        ({"purpose": "batch", **{f"field{i}": "x" for i in range(40)}}, 400),
        ({"purpose": "x" * 5000}, 400),
    ],
)
async def test_forms_that_are_wrong_are_refused(
    gateways: Gateways, form: dict[str, str], status: int
) -> None:
    world = await gateways.start(0)
    data = aiohttp.FormData(form)
    data.add_field("file", b"x", filename="x")
    assert await _posted(world, data) == status
    await _empty(gateways)


async def test_a_form_needs_one_file(gateways: Gateways) -> None:
    world = await gateways.start(0)
    none = aiohttp.FormData({"purpose": "batch"}, default_to_multipart=True)
    assert await _posted(world, none) == 400
    two = aiohttp.FormData({"purpose": "batch"})
    for _ in range(2):
        two.add_field("file", b"x", filename="x")
    assert await _posted(world, two) == 400
    behind = aiohttp.FormData()
    behind.add_field("file", b"x", filename="x")
    behind.add_field("purpose", "batch")
    assert await _posted(world, behind) == 200


async def _posted(world: World, data: Any) -> int:
    headers = {"authorization": "Bearer one"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{world.url}/v1/files", data=data, headers=headers) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/x", "/v1/files/x/content", "/v1/batches"])
async def test_a_key_is_needed(gateways: Gateways, path: str) -> None:
    world = await gateways.start(0)
    async with aiohttp.ClientSession() as session, session.get(world.url + path) as answer:
        assert answer.status == 401


async def test_expired_files_are_removed(gateways: Gateways) -> None:
    world = await gateways.start(0)
    client = gateways.client(world)
    made = await client.files.create(file=("x", b"x"), purpose="batch")
    engine = open_database(f"sqlite:///{gateways.folder / 'weir.db'}")
    with writing(engine) as connection:
        connection.execute(update(files).values(expires_s=1.0))
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
    await batches_of(world).runner._sweep()
    await _empty(gateways)


def test_an_upload_that_was_given_up_cannot_be_published(engine: Engine) -> None:
    table = FileTable(engine, FilesSettings())
    made = StoredFile("file-1", "t", BATCH, "x", 5, 1000.0, None)
    table.reserve(made)
    with pytest.raises(NotFoundError):
        table.find("t", "file-1", 1000.0)
    assert table.drop_expired(1000.0 + 3 * 3600) == [made]
    with pytest.raises(NotFoundError):
        table.publish(made)
    assert table.page("t", FilePage(), 1000.0) == ([], False)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"a.jsonl", "a.jsonl"),
        (b"../../etc/passwd", "passwd"),
        (b"C:\\x\\y.jsonl", "y.jsonl"),
        (b"a\r\nset-cookie: x", "aset-cookie: x"),
        (b"\xff", "\ufffd"),
        (b"", "upload"),
        (b"x" * 300, "x" * 255),
    ],
)
def test_names_are_shown_and_never_used(given: bytes, shown: str) -> None:
    assert shown_name(given) == shown


def test_a_body_that_is_no_form_is_refused() -> None:
    with pytest.raises(BadRequestError):
        FormReader("application/json")
    reader = FormReader("multipart/form-data; boundary=b")
    with pytest.raises(BadRequestError):
        reader.feed(b"hello")


def test_a_content_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}/x", "memory://weir-test-files"):
        storage = open_storage(url)
        content = storage.begin("files/a")
        content.write(b"hello")
        with pytest.raises(FileNotFoundError):
            storage.read("files/a", 0, 5)
        content.commit()
        content.discard()
        assert storage.read("files/a", 1, 3) == b"el"
        with pytest.raises(RuntimeError), storage.create("files/b") as broken:
            _fail(broken)
        with pytest.raises(FileNotFoundError):
            storage.read("files/b", 0, 1)
        storage.remove("files/a")
        storage.remove("files/a")
        storage.remove_folder("files")
        storage.remove_folder("files")
        for name in ("../x", "files/../x", "/x", "", "files/"):
            with pytest.raises(ValueError):
                storage.begin(name)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _fail(content: NewContent) -> None:
    content.write(b"x")
    raise RuntimeError


def test_a_storage_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError):
        open_storage("nobody://x")


async def test_files_go_with_their_tenant(tmp_path: Path) -> None:
    """Those of tenants that are deleted, uploads under way too; batches when they have ended."""
    engine = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(engine)
    tenancy = TenantStore(engine, lambda: 1000.0)
    table, jobs = FileTable(engine, FilesSettings()), BatchTable(engine)
    for tenant in ("gone", "stays"):
        tenancy.create_tenant("test", tenant, TenantFields())
        for name in ("input", "output", "upload"):
            made = StoredFile(f"file-{tenant}-{name}", tenant, BATCH, "x", 1, 1000.0, 9e9)
            table.reserve(made)
            if name != "upload":
                table.publish(made)
        for status in ("in_progress", "completed"):
            _add_batch(engine, tenant, status)
    assert table.drop_expired(1001.0) == []
    assert jobs.drop_old(1001.0, 100.0) == 0
    tenancy.delete_tenant("test", "gone")
    dropped = {file.id for file in table.drop_expired(1001.0)}
    assert dropped == {"file-gone-output", "file-gone-upload"}, "a batch still reads its input"
    assert jobs.drop_old(1001.0, 100.0) == 1
    with writing(engine) as connection:
        ended = update(batches).where(batches.c.tenant == "gone").values(status="cancelled")
        connection.execute(ended)
    assert [file.id for file in table.drop_expired(1002.0)] == ["file-gone-input"]
    assert jobs.drop_old(1002.0, 100.0) == 1
    assert len(table.page("stays", FilePage(), 1002.0)[0]) == 2
    with reading(engine) as connection:
        assert {row.tenant for row in connection.execute(select(batches))} == {"stays"}
        used = dict(connection.execute(select(file_usage.c.tenant, file_usage.c.files)).all())
    assert used == {"gone": 0, "stays": 3}
    engine.dispose()


def _add_batch(engine: Engine, tenant: str, status: str) -> None:
    counts = ("total", "completed", "failed", "not_computed", "prompt_tokens", "cached_tokens",
              "output_tokens")  # fmt: skip
    row = dict.fromkeys(counts, 0) | {
        "id": f"batch-{tenant}-{status}",
        "tenant": tenant,
        "key_id": "k",
        "family": "openai",
        "endpoint": "/v1/chat/completions",
        "input_file_id": f"file-{tenant}-input",
        "completion_window": "24h",
        "status": status,
        "frozen": status == "completed",
        "created_s": 1000.0,
        "expires_s": 9e9,
    }
    with writing(engine) as connection:
        connection.execute(insert(batches).values(row))
