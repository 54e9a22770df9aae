"""The ledger's tables. Times are milliseconds since the epoch, amounts whole nano-USD."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table

from weir.database import metadata

HOUR_MS = 3_600_000

#: One row for each part of a leg; see :class:`weir.ledger.UsageRecord`. What is not billed stays.
usage_records = Table(
    "usage_records",
    metadata,
    Column("leg", String(160), primary_key=True),
    Column("request", String(128), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("key", String(63), nullable=False),
    Column("model", String(128), nullable=False),
    Column("asked", String(256), nullable=False),
    Column("adapter", String(256), nullable=False),
    Column("pool", String(63), nullable=False),
    Column("replica", String(128), nullable=False),
    Column("prefill_replica", String(128), nullable=False),
    Column("priority_class", String(63), nullable=False),
    Column("endpoint", String(63), nullable=False),
    Column("label", String(64), nullable=False),
    Column("part", String(16), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("billed_prompt_tokens", BigInteger, nullable=False),
    Column("billed_cached_tokens", BigInteger, nullable=False),
    Column("billed_output_tokens", BigInteger, nullable=False),
    Column("images", Integer, nullable=False),
    Column("nano_usd", BigInteger, nullable=False),
    Column("asked_nano_usd", BigInteger, nullable=False),
    Column("billed", Boolean, nullable=False),
    Column("loss", String(16), nullable=False),
    Column("spill", String(16), nullable=False),
    Column("batch", Boolean, nullable=False),
    Column("prefill_us", BigInteger),
    Column("decode_us", BigInteger),
    Column("requests", Integer, nullable=False),
    Index("ix_usage_records_tenant_ended_ms", "tenant", "ended_ms"),
    Index("ix_usage_records_ended_ms", "ended_ms"),
)

#: Which request, by its legs' serial, pays for a line of a batch: the first whose records came.
#: ``line`` is the request's id, which names batch and line.
billed_lines = Table(
    "billed_lines",
    metadata,
    Column("line", String(128), primary_key=True),
    Column("serial", String(63), nullable=False),
    Column("ended_ms", BigInteger, nullable=False, index=True),
)

#: By what sums are kept. ``hour_ms``: the beginning of the hour in which a leg ended.
SUM_KEYS = (
    "hour_ms",
    "tenant",
    "key",
    "model",
    "asked",
    "pool",
    "priority_class",
    "endpoint",
    "label",
    "spill",
    "batch",
)
#: What is summed. ``untold_*``: tokens of legs whose replica has not told how long they took.
SUMS = (
    "requests",
    "legs",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "billed_prompt_tokens",
    "billed_cached_tokens",
    "billed_output_tokens",
    "images",
    "nano_usd",
    "asked_nano_usd",
    "prefill_us",
    "decode_us",
    "untold_prompt_tokens",
    "untold_output_tokens",
)

#: Kept up with every insert, in the same transaction: reports read these, not the records.
usage_sums = Table(
    "usage_sums",
    metadata,
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    *(
        Column(name, usage_records.c[name].type, primary_key=True, autoincrement=False)
        for name in SUM_KEYS[1:]
    ),
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
    Index("ix_usage_sums_tenant_hour_ms", "tenant", "hour_ms"),
)

#: When a replica was up within an hour, and what that hour of it costs; see
#: :class:`weir.ledger.ReplicaTime`.
replica_hours = Table(
    "replica_hours",
    metadata,
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", String(128), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("pool", String(63), nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("market", String(16), nullable=False),
    Column("nano_usd_per_hour", BigInteger, nullable=False),
    Column("on_demand_nano_usd_per_hour", BigInteger, nullable=False),
)

#: Of which outbox the database has everything up to which record; see :mod:`weir.ledger.shipping`.
ledger_outboxes = Table(
    "ledger_outboxes",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("committed", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
