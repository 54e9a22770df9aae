"""Batch jobs as clients see them: made, found, listed, cancelled. Nothing here runs on an event
loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from deployments.batches.files import BATCH, deleted_tenants, lock_tenant, require_file
from deployments.batches.life import ACTIVE, CANCELLABLE, Status
from deployments.batches.tables import batches
from weir.database import reading, writing
from weir.errors import BadRequestError, ConflictError, NotFoundError, RateLimitError

_TIMES = (
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)

_COUNTS = (
    "total",
    "completed",
    "failed",
    "not_computed",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What is said of a batch when it is made. ``family``: whose API it was made by; ``key_id``:
    the key as which its lines run. ``output_ttl_s``: how long its outputs are kept."""

    id: str
    tenant: str
    key_id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_s: float
    expires_s: float
    metadata: Mapping[str, str] | None = None
    output_ttl_s: float | None = None
    family: str = "openai"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands. ``number`` counts the platform's batches. ``times``: when it came to a
    status, in seconds since the epoch. ``frozen``: no more results are taken. ``failed`` includes
    those of ``not_computed`` that are in the error file."""

    number: int
    id: str
    tenant: str
    key_id: str
    family: str
    endpoint: str
    input_file_id: str
    completion_window: str
    output_ttl_s: float | None
    metadata: Mapping[str, str] | None
    status: Status
    frozen: bool
    errors: list[dict[str, Any]] | None
    model: str | None
    total: int
    completed: int
    failed: int
    not_computed: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_file_id: str | None
    error_file_id: str | None
    created_s: float
    expires_s: float
    times: Mapping[str, float | None]

    def shown(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        errors = None if self.errors is None else {"object": "list", "data": self.errors}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status.value,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_s),
            "expires_at": int(self.expires_s),
            **{f"{name}_at": _whole(self.times[name]) for name in _TIMES},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": self._usage(),
            "metadata": self.metadata,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.output_tokens,
        }


class BatchTable:
    """The platform's batches, each its tenant's own. ``now_s``: seconds since the epoch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, made: NewBatch, max_active: int) -> Batch:
        """Begin a batch.

        Raises:
            NotFoundError: the tenant has no such input file.
            BadRequestError: the file is not for batches.
            RateLimitError: the tenant has ``max_active`` batches under way.
        """
        with writing(self._engine) as connection:
            lock_tenant(connection, made.tenant)
            _require_input(connection, made)
            counted = select(func.count()).where(
                batches.c.tenant == made.tenant, batches.c.status.in_(ACTIVE)
            )
            if connection.execute(counted).scalar_one() >= max_active:
                raise RateLimitError(f"{max_active} batches are under way already.")
            connection.execute(insert(batches).values(_begun(made)))
            return find(connection, made.tenant, made.id)

    def find(self, tenant: str | None, batch_id: str) -> Batch:
        """A batch of the tenant (None: of any).

        Raises:
            NotFoundError: there is none of that id.
        """
        with reading(self._engine) as connection:
            return find(connection, tenant, batch_id)

    def page(
        self, tenant: str | None, after: str | None = None, limit: int = 20, family: str = "openai"
    ) -> tuple[list[Batch], bool]:
        """Some batches of the tenant (None: of all), newest first, and whether there are more.

        Raises:
            BadRequestError: there is none with the id ``after``.
        """
        query = select(batches).where(batches.c.family == family)
        query = query.order_by(batches.c.number.desc()).limit(limit + 1)
        if tenant is not None:
            query = query.where(batches.c.tenant == tenant)
        with reading(self._engine) as connection:
            if after is not None:
                try:
                    last = find(connection, tenant, after)
                except NotFoundError:
                    raise BadRequestError(
                        f"after: no batch {after[:80]!r}.", param="after"
                    ) from None
                query = query.where(batches.c.number < last.number)
            rows = connection.execute(query).mappings().all()
        return [batch_of(row) for row in rows[:limit]], len(rows) > limit

    def cancel(self, tenant: str | None, batch_id: str, now_s: float) -> Batch:
        """Take on no more of its lines; what is computed is kept.

        Raises:
            NotFoundError: there is none of that id.
            ConflictError: it has ended.
        """
        with writing(self._engine) as connection:
            found = find(connection, tenant, batch_id)
            cancelling = (
                update(batches)
                .where(batches.c.number == found.number, batches.c.status.in_(CANCELLABLE))
                .values(status=Status.CANCELLING, cancelling_s=now_s)
            )
            if not connection.execute(cancelling).rowcount:
                found = find(connection, tenant, batch_id)
                if found.status.ended:
                    raise ConflictError(
                        f"Cannot cancel a batch with status '{found.status}'.", param="batch_id"
                    )
            return find(connection, tenant, batch_id)

    def delete(self, tenant: str, batch_id: str) -> Batch:
        """Forget a batch that has ended; its outputs are files of their own.

        Raises:
            NotFoundError: the tenant has none of that id.
            ConflictError: it has not ended.
        """
        with writing(self._engine) as connection:
            found = find(connection, tenant, batch_id)
            if not found.status.ended:
                raise ConflictError(f"The batch is {found.status}; cancel it first.")
            connection.execute(delete(batches).where(batches.c.number == found.number))
            return found

    def drop_old(self, now_s: float, ttl_s: float) -> int:
        """Forget batches that ended so long ago that their outputs are gone, and those of tenants
        that are deleted, once they have ended; how many.
        ``ttl_s``: how long outputs are kept that nobody asked to be kept otherwise."""
        kept_s = func.coalesce(batches.c.output_ttl_s, 0.0) + ttl_s
        over = or_(batches.c.expires_s + kept_s <= now_s, batches.c.tenant.in_(deleted_tenants()))
        old = and_(batches.c.status.not_in(ACTIVE), over)
        with reading(self._engine) as connection:
            if connection.execute(select(batches.c.number).where(old).limit(1)).first() is None:
                return 0
        with writing(self._engine) as connection:
            return connection.execute(delete(batches).where(old)).rowcount


def find(connection: Connection, tenant: str | None, batch_id: str) -> Batch:
    """A batch of the tenant (None: of any).

    Raises:
        NotFoundError: there is none of that id.
    """
    query = select(batches).where(batches.c.id == batch_id)
    if tenant is not None:
        query = query.where(batches.c.tenant == tenant)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"No batch found with id {batch_id[:80]!r}.", param="batch_id")
    return batch_of(row)


def batch_of(row: RowMapping) -> Batch:
    """A row of the table."""
    given = {field.name: row[field.name] for field in fields(Batch) if field.name in row}
    given["status"] = Status(row["status"])
    return Batch(**given, times={name: row[f"{name}_s"] for name in _TIMES})


def _require_input(connection: Connection, made: NewBatch) -> None:
    try:
        row = require_file(connection, made.tenant, made.input_file_id, made.created_s)
    except NotFoundError as error:
        raise BadRequestError(f"input_file_id: {error.message}", param="input_file_id") from None
    if row["purpose"] != BATCH:
        raise BadRequestError(
            f"input_file_id: the purpose of this file is {row['purpose']!r}, not 'batch'.",
            param="input_file_id",
        )


def _begun(made: NewBatch) -> dict[str, Any]:
    given = {field.name: getattr(made, field.name) for field in fields(NewBatch)}
    none = dict.fromkeys(_COUNTS, 0)
    return {**given, **none, "status": Status.VALIDATING, "frozen": False}


def _whole(at_s: float | None) -> int | None:
    return None if at_s is None else int(at_s)
