"""Batches in the database whose lines can be computed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine

from deployments.batches.files import BATCH, FileTable, StoredFile
from deployments.batches.jobs import BatchTable, NewBatch
from deployments.batches.work import Chunk, Share, WorkTable
from weir.settings.batches import FilesSettings


def begin(database: Engine, number: int, lines: int, model: str, expires_s: float) -> int:
    """A batch of so many lines of 400 bytes each, for one model; returns its number."""
    return begin_mixed(database, number, {model: lines}, expires_s)


def begin_mixed(
    database: Engine, number: int, lines_of: Mapping[str, int], expires_s: float
) -> int:
    """A batch of so many lines of 400 bytes for each model."""
    lines = sum(lines_of.values())
    made = StoredFile(f"file-{number}", "t", BATCH, "x", 400 * lines, 1.0, None)
    files = FileTable(database, FilesSettings())
    files.reserve(made)
    files.publish(made)
    new = NewBatch(f"batch_{number}", "t", "k", "/v1/x", made.id, "24h", 1.0, expires_s)
    BatchTable(database).create(new, 10)
    work = WorkTable(database, "a", 10.0)
    batch = work.claim_batch(2.0)
    assert batch is not None
    chunk = Chunk(0, 1, lines, lines, 0, 400 * lines)
    shares = {model: Share(own, 400 * own) for model, own in lines_of.items()}
    assert work.begin(batch, [chunk], shares, 2.0)
    return batch.number
