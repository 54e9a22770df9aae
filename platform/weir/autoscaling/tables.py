"""Where decisions of the autoscaler are kept, with what was seen. Times are seconds since the
epoch."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, String, Table

from weir.database import metadata

#: ``state``: the model as the policy saw it; ``explanation``: what it said of its answer.
decisions = Table(
    "autoscaling_decisions",
    metadata,
    Column("number", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("model", String(255), nullable=False),
    Column("policy", String(63), nullable=False),
    Column("changed", Boolean, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("targets_before", JSON, nullable=False),
    Column("usd_per_hour", Double, nullable=False),
    Column("spill_share", Double, nullable=False),
    Column("explanation", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    Index("ix_autoscaling_decisions_model_at_s", "model", "at_s"),
    Index("ix_autoscaling_decisions_at_s", "at_s"),
    sqlite_autoincrement=True,
)
