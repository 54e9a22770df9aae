"""The audit log: every change of the platform's directory, append-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from weir.database.engine import reading
from weir.errors import BadRequestError
from weir.tenancy.records import AuditEntry, Page
from weir.tenancy.tables import audit_log


def append_audit(
    connection: Connection,
    at_s: float,
    actor: str,
    action: str,
    object: str,
    *,
    tenant_id: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    revision: int | None = None,
) -> None:
    """Note one change, in the transaction that makes it. ``before`` and ``after`` must hold no
    secret and no prompt."""
    connection.execute(
        insert(audit_log).values(
            at_s=at_s,
            actor=actor[:255],
            action=action,
            object=object[:255],
            tenant_id=tenant_id,
            before=before,
            after=after,
            revision=revision,
        )
    )


def read_audit(
    engine: Engine, *, tenant_id: str | None = None, after: str | None = None, limit: int = 100
) -> Page[AuditEntry]:
    """The newest entries first, of one tenant or of all.

    Raises:
        BadRequestError: ``after`` is not from a page of this list.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit + 1)
    if tenant_id is not None:
        query = query.where(audit_log.c.tenant_id == tenant_id)
    if after is not None:
        if not after.isdecimal() or len(after) > 18:
            raise BadRequestError("after: not from this list", param="after")
        query = query.where(audit_log.c.id < int(after))
    with reading(engine) as connection:
        entries = [AuditEntry(**row) for row in connection.execute(query).mappings()]
    more = len(entries) > limit
    return Page(tuple(entries[:limit]), str(entries[limit - 1].id) if more else None)
