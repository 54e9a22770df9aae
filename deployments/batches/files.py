"""What the database knows of files: whose they are, how large, until when, and whether they are
there at all. Nothing here runs on an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, and_, delete, insert, or_, select, update

from deployments.batches.life import ACTIVE
from deployments.batches.tables import batches, file_usage, files
from weir.database import reading, writing
from weir.errors import BadRequestError, FileInUseError, NotFoundError, StorageFullError
from weir.settings.batches import FilesSettings
from weir.tenancy.tables import tenants

BATCH = "batch"
BATCH_OUTPUT = "batch_output"
#: An upload that has not ended by then never will.
UPLOAD_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a tenant. Times are seconds since the epoch."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    created_s: float
    expires_s: float | None

    @property
    def path(self) -> str:
        """Its name in the storage: made of its id, and of nothing that a client wrote."""
        return file_path(self.id)

    def shown(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created_s),
            "expires_at": None if self.expires_s is None else int(self.expires_s),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def file_path(file_id: str) -> str:
    """Where the file of that id is in the storage."""
    return f"files/{file_id}"


@dataclass(frozen=True, slots=True)
class FilePage:
    """What part of a tenant's files to list. ``after``: the id of the last one seen."""

    after: str | None = None
    limit: int = 10_000
    newest_first: bool = True
    purpose: str | None = None


class FileTable:
    """``settings`` has the bounds. ``now_s`` is the time, in seconds since the epoch."""

    def __init__(self, engine: Engine, settings: FilesSettings) -> None:
        self._engine = engine
        self._settings = settings

    def reserve(self, made: StoredFile) -> None:
        """Room for an upload of at most ``made.bytes``.

        Raises:
            StorageFullError: the tenant has as much, or as many, as it may.
        """
        most = self._settings
        with writing(self._engine) as connection:
            _ensure_usage(connection, made.tenant)
            room = and_(
                file_usage.c.tenant == made.tenant,
                file_usage.c.bytes + made.bytes <= most.max_bytes_per_tenant,
                file_usage.c.files + 1 <= most.max_files_per_tenant,
            )
            if not _add_usage(connection, room, 1, made.bytes):
                raise StorageFullError(
                    f"At most {most.max_files_per_tenant} files with {most.max_bytes_per_tenant} "
                    "bytes together are kept for a tenant; delete some.",
                    param="file",
                )
            connection.execute(insert(files).values(_row(made, ready=False)))

    def publish(self, made: StoredFile) -> None:
        """The upload is complete: from now on there is such a file.

        Raises:
            NotFoundError: its reservation has been given up.
        """
        with writing(self._engine) as connection:
            held = connection.execute(select(files).where(files.c.id == made.id)).mappings().first()
            if held is None or held["ready"]:
                raise NotFoundError("The upload took too long.", param="file")
            mine = file_usage.c.tenant == made.tenant
            _add_usage(connection, mine, 0, made.bytes - held["bytes"])
            row = _row(made, ready=True)
            connection.execute(update(files).where(files.c.id == made.id).values(row))

    def give_up(self, file_id: str) -> None:
        """The upload has been broken off."""
        with writing(self._engine) as connection:
            query = select(files).where(files.c.id == file_id, files.c.ready.is_(False))
            _drop(connection, connection.execute(query).mappings().all())

    def find(self, tenant: str, file_id: str, now_s: float) -> StoredFile:
        """A file of the tenant.

        Raises:
            NotFoundError: it has none of that id.
        """
        with reading(self._engine) as connection:
            return _file(require_file(connection, tenant, file_id, now_s))

    def page(self, tenant: str, page: FilePage, now_s: float) -> tuple[list[StoredFile], bool]:
        """Some of the tenant's files, and whether there are more.

        Raises:
            BadRequestError: it has none with the id ``after``.
        """
        order = files.c.number.desc() if page.newest_first else files.c.number
        with reading(self._engine) as connection:
            query = select(files).where(_there(tenant, now_s)).order_by(order)
            if page.purpose is not None:
                query = query.where(files.c.purpose == page.purpose)
            if page.after is not None:
                asked = select(files.c.number).where(
                    files.c.id == page.after, files.c.tenant == tenant
                )
                number = connection.execute(asked).scalar()
                if number is None:
                    raise BadRequestError(f"after: no file {page.after[:80]!r}.", param="after")
                past = files.c.number < number if page.newest_first else files.c.number > number
                query = query.where(past)
            rows = connection.execute(query.limit(page.limit + 1)).mappings().all()
        return [_file(row) for row in rows[: page.limit]], len(rows) > page.limit

    def delete(self, tenant: str, file_id: str, now_s: float) -> StoredFile:
        """Forget a file; its content is then to be removed.

        Raises:
            NotFoundError: the tenant has none of that id.
            FileInUseError: a batch reads it.
        """
        with writing(self._engine) as connection:
            row = require_file(connection, tenant, file_id, now_s)
            _require_unused(connection, file_id)
            _drop(connection, [row])
        return _file(row)

    def drop_expired(self, now_s: float, most: int = 100) -> list[StoredFile]:
        """Forget files whose time is over, those of tenants that are deleted, and uploads that
        never ended; their contents are then to be removed. What a batch reads stays until it has
        ended."""
        read = select(batches.c.input_file_id).where(batches.c.status.in_(ACTIVE))
        over = or_(
            and_(files.c.ready, files.c.expires_s <= now_s),
            and_(files.c.ready.is_(False), files.c.created_s <= now_s - 2 * UPLOAD_LIMIT_S),
            files.c.tenant.in_(deleted_tenants()),
        )
        query = select(files).where(over, files.c.id.not_in(read)).limit(most)
        with reading(self._engine) as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        with writing(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
            _drop(connection, rows)
        return [_file(row) for row in rows]


def deleted_tenants() -> Any:
    """The ids of tenants of the database that are deleted."""
    return select(tenants.c.id).where(tenants.c.deleted_s.is_not(None))


def add_output(connection: Connection, made: StoredFile) -> None:
    """A batch's output: it is there from the end of this transaction on. Never refused."""
    _ensure_usage(connection, made.tenant)
    _add_usage(connection, file_usage.c.tenant == made.tenant, 1, made.bytes)
    connection.execute(insert(files).values(_row(made, ready=True)))


def require_file(connection: Connection, tenant: str, file_id: str, now_s: float) -> RowMapping:
    """The row of a tenant's file.

    Raises:
        NotFoundError: it has none of that id.
    """
    query = select(files).where(files.c.id == file_id, _there(tenant, now_s))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"No such file: {file_id[:80]!r}.", param="file_id")
    return row


def lock_tenant(connection: Connection, tenant: str) -> None:
    """Until the end of the transaction, no other one counts this tenant's files or batches."""
    _ensure_usage(connection, tenant)
    _add_usage(connection, file_usage.c.tenant == tenant, 0, 0)


def _require_unused(connection: Connection, file_id: str) -> None:
    query = select(batches.c.id).where(
        batches.c.input_file_id == file_id, batches.c.status.in_(ACTIVE)
    )
    if reader := connection.execute(query).scalar():
        raise FileInUseError(f"{reader} reads this file; cancel it first.", param="file_id")


def _there(tenant: str, now_s: float) -> Any:
    alive = or_(files.c.expires_s.is_(None), files.c.expires_s > now_s)
    return and_(files.c.tenant == tenant, files.c.ready, alive)


def _ensure_usage(connection: Connection, tenant: str) -> None:
    """A row that counts for the tenant; two transactions may both try to make it."""
    there = select(file_usage.c.tenant).where(file_usage.c.tenant == tenant)
    if connection.execute(there).first() is None:
        none = {"tenant": tenant, "files": 0, "bytes": 0}
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as insert_new

            connection.execute(insert_new(file_usage).values(none).on_conflict_do_nothing())
        else:
            connection.execute(insert(file_usage).values(none))


def _add_usage(connection: Connection, which: Any, count: int, size: int) -> int:
    added = {"files": file_usage.c.files + count, "bytes": file_usage.c.bytes + size}
    return connection.execute(update(file_usage).where(which).values(added)).rowcount


def _drop(connection: Connection, rows: Sequence[RowMapping]) -> None:
    for row in rows:
        if connection.execute(delete(files).where(files.c.id == row["id"])).rowcount:
            _add_usage(connection, file_usage.c.tenant == row["tenant"], -1, -row["bytes"])


def _row(made: StoredFile, *, ready: bool) -> dict[str, Any]:
    return {
        "id": made.id,
        "tenant": made.tenant,
        "purpose": made.purpose,
        "filename": made.filename,
        "bytes": made.bytes,
        "ready": ready,
        "created_s": made.created_s,
        "expires_s": made.expires_s,
    }


def _file(row: RowMapping) -> StoredFile:
    return StoredFile(
        row["id"],
        row["tenant"],
        row["purpose"],
        row["filename"],
        row["bytes"],
        row["created_s"],
        row["expires_s"],
    )
