"""The tables of files and batch jobs. Times are seconds since the epoch.

- A row of ``files`` that is not ready is an upload under way; its ``bytes`` are reserved for it.
- ``batches.frozen``: no more results are taken. ``batches.not_computed``: lines without a result
  when it ended.
- Lines are numbered as in the file, from 1, blank ones too; ``requests`` counts those that are not
  blank.
- A lease is held while ``lease_until_s`` is in the future.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
)

from weir.database.schema import metadata

_NUMBER = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    metadata,
    Column("number", _NUMBER, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(63), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Index(None, "tenant", "number"),
    sqlite_autoincrement=True,
)

file_usage = Table(
    "file_usage",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("files", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("number", _NUMBER, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(63), nullable=False),
    Column("key_id", String(63), nullable=False),
    Column("family", String(16), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("input_file_id", String(64), nullable=False, index=True),
    Column("completion_window", String(8), nullable=False),
    Column("output_ttl_s", Double),
    Column("metadata", JSON(none_as_null=True)),
    Column("status", String(16), nullable=False, index=True),
    Column("frozen", Boolean, nullable=False),
    Column("errors", JSON(none_as_null=True)),
    Column("model", String(255)),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("not_computed", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double, nullable=False),
    Column("in_progress_s", Double),
    Column("finalizing_s", Double),
    Column("completed_s", Double),
    Column("failed_s", Double),
    Column("expired_s", Double),
    Column("cancelling_s", Double),
    Column("cancelled_s", Double),
    Column("lease_owner", String(64)),
    Column("lease_until_s", Double),
    Index(None, "tenant", "number"),
    sqlite_autoincrement=True,
)


def _of_batch() -> Column[int]:
    of = ForeignKey("batches.number", ondelete="CASCADE")
    return Column("batch", _NUMBER, of, primary_key=True, autoincrement=False)


batch_chunks = Table(
    "batch_chunks",
    metadata,
    _of_batch(),
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("first_line", Integer, nullable=False),
    Column("last_line", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("lease_owner", String(64), index=True),
    Column("lease_until_s", Double),
)

#: What of a batch is for one model: lines and the bytes of the input that they are, how many have
#: their result, and the tokens of those.
batch_models = Table(
    "batch_models",
    metadata,
    _of_batch(),
    Column("model", String(255), primary_key=True),
    Column("lines", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("done", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
)

#: Where a line's result is: in a part, from ``offset`` on.
batch_lines = Table(
    "batch_lines",
    metadata,
    _of_batch(),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("part", String(64), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("failed", Boolean, nullable=False),
    Index(None, "batch", "part"),
)
