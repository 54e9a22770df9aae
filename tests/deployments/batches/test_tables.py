"""The tables in both databases: what migrations make of them, and two who record at once."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine

from deployments.batches.files import BATCH, FilePage, FileTable, StoredFile
from deployments.batches.jobs import BatchTable, NewBatch
from deployments.batches.life import Status
from deployments.batches.results import Result, ResultTable
from deployments.batches.work import Chunk, WorkTable
from weir.database import metadata, reading
from weir.errors import NotFoundError, StorageFullError
from weir.settings.batches import FilesSettings

OURS = {"files", "file_usage", "batches", "batch_chunks", "batch_lines"}


def test_the_migrations_make_the_tables(database: Engine) -> None:
    with reading(database) as connection:
        context = MigrationContext.configure(connection)
        found = [str(each) for each in compare_metadata(context, metadata)]
    assert set(metadata.tables) >= OURS
    assert [each for each in found if any(f"'{name}'" in each for name in OURS)] == []


def begun(database: Engine, lines: int) -> int:
    made = StoredFile("file-1", "t", BATCH, "x", 5, 1.0, None)
    files = FileTable(database, FilesSettings())
    files.reserve(made)
    files.publish(made)
    new = NewBatch("batch_1", "t", "k", "/v1/x", "file-1", "24h", 1.0, 1000.0)
    BatchTable(database).create(new, 1)
    work = WorkTable(database, "a", 10.0)
    batch = work.claim_batch(2.0)
    assert batch is not None
    assert work.begin(batch, [Chunk(0, 1, lines, lines, 0, 5)], {}, 2.0)
    return batch.number


def test_what_several_record_at_once_is_there_once(database: Engine) -> None:
    number = begun(database, 50)
    table = ResultTable(database)

    def record(owner: int) -> None:
        for first in range(1, 50, 5):
            lines = range(first, min(51, first + 10))
            results = [Result(line, 0, 1, line % 7 == 0, 1, 0, 1) for line in lines]
            assert table.record(number, f"part-{owner}-{first}", results) is not None

    threads = [threading.Thread(target=record, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch = BatchTable(database).find("t", "batch_1")
    assert (batch.completed, batch.failed) == (43, 7)
    assert batch.output_tokens == 50
    parts = table.parts(batch)
    lines = [result.line for part in parts for result in table.results(batch, part)]
    assert sorted(lines) == list(range(1, 51))


def test_a_chunk_is_claimed_by_one(database: Engine) -> None:
    begun(database, 5)
    claims = []
    gate = threading.Barrier(4)

    def claim(owner: int) -> None:
        gate.wait()
        claims.append(WorkTable(database, f"owner-{owner}", 10.0).claim_chunk(3.0))

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in claims) == 1


def test_a_batch_is_forgotten_when_its_outputs_are(database: Engine) -> None:
    begun(database, 5)
    table = BatchTable(database)
    assert table.drop_old(1e9, 3600.0) == 0  # it has not ended
    table.cancel("t", "batch_1", 3.0)
    work = WorkTable(database, "a", 10.0)
    batch = work.claim_batch(4.0)
    assert batch is not None
    assert work.finish(batch, Status.CANCELLED, None, None, 5, 0, 5.0)
    assert table.drop_old(1000.0 + 3599.0, 3600.0) == 0
    assert table.drop_old(1000.0 + 3600.0, 3600.0) == 1
    with pytest.raises(NotFoundError):
        table.find("t", "batch_1")


def test_tenants_take_turns(database: Engine) -> None:
    """One has many chunks and was first; the other's chunk is next as soon as one is taken."""
    files, table = FileTable(database, FilesSettings()), BatchTable(database)
    work = WorkTable(database, "a", 10.0)
    for tenant in ("t", "u"):
        made = StoredFile(f"file-{tenant}", tenant, BATCH, "x", 5, 1.0, None)
        files.reserve(made)
        files.publish(made)
        name = f"batch_{tenant}"
        table.create(NewBatch(name, tenant, "k", "/x", made.id, "24h", 1.0, 1000.0), 1)
        batch = work.claim_batch(2.0)
        assert batch is not None
        chunks = [Chunk(n, n + 1, n + 1, 1, 0, 1) for n in range(4)]
        assert work.begin(batch, chunks, {}, 2.0)
    claims = [work.claim_chunk(3.0) for _ in range(8)]
    assert [claim.batch.tenant for claim in claims if claim] == ["t", "u"] * 4
    assert work.claim_chunk(3.0) is None


def test_room_is_reserved_once_by_many_at_once(database: Engine) -> None:
    table = FileTable(database, FilesSettings(max_files_per_tenant=10, max_bytes_per_tenant=35))
    refused = []

    def upload(number: int) -> None:
        made = StoredFile(f"file-{number}", "t", BATCH, "x", 10, 1.0, None)
        try:
            table.reserve(made)
        except StorageFullError:
            refused.append(number)
            return
        table.publish(StoredFile(made.id, "t", BATCH, "x", 9, 1.0, None))

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept, _ = table.page("t", FilePage(), 2.0)
    assert len(kept) == 3
    assert len(refused) == 5


def test_a_lease_is_held_as_long_as_it_is_renewed(database: Engine) -> None:
    number = begun(database, 5)
    mine, other = (WorkTable(database, owner, 10.0) for owner in ("a", "b"))
    claim = mine.claim_chunk(3.0)
    assert claim is not None
    assert mine.renew(12.0, [], [(number, 0)]) == {number: {0}}
    assert other.claim_chunk(14.0) is None
    assert mine.renew(15.0, [number], []) == {number: {0}}
    assert other.claim_chunk(22.5) is not None
    assert mine.renew(23.0, [], [(number, 0)]) == {}
