"""Batch jobs: listed, read and cancelled. They are made, and their files are, with
``/v1/batches`` and ``/v1/files``."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from deployments.batches.jobs import Batch, BatchTable
from deployments.control.changes import Made
from deployments.control.paging import Page, Wanted, cursor, place_of, wanted
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes, principal_of
from deployments.control.tenants import find_tenant
from weir.tenancy import Role
from weir.tenancy.audit import append_audit

_ID = Path(description="The job's id.", examples=["batch_6f1d"], pattern=r"^[A-Za-z0-9_-]{1,63}$")
Family = Literal["openai", "anthropic"]
_FAMILY = Query("openai", description="Whose API the jobs were made by.")


class CountsBody(BaseModel):
    """Lines of a job."""

    total: int
    completed: int
    failed: int


class JobBody(BaseModel):
    """A batch job. Times are seconds since the epoch."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "batch_job",
                    "id": "batch_6f1d",
                    "tenant": "acme",
                    "key": "k3v9x2m8q1zt",
                    "endpoint": "/v1/chat/completions",
                    "model": "weir-teacher",
                    "status": "in_progress",
                    "lines": {"total": 2000, "completed": 731, "failed": 2},
                    "prompt_tokens": 51170,
                    "cached_tokens": 36500,
                    "output_tokens": 21930,
                    "created_s": 1796083200.0,
                    "expires_s": 1796169600.0,
                    "times_s": {"in_progress": 1796083201.5},
                    "errors": None,
                    "metadata": {"run": "nightly"},
                }
            ]
        }
    )
    object: Literal["batch_job"] = "batch_job"
    id: str
    tenant: str
    key: str
    endpoint: str
    model: str | None
    status: str
    lines: CountsBody
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    created_s: float
    expires_s: float
    times_s: dict[str, float]
    errors: list[dict[str, Any]] | None
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> JobBody:
        """A job of the table."""
        return cls(
            id=batch.id,
            tenant=batch.tenant,
            key=batch.key_id,
            endpoint=batch.endpoint,
            model=batch.model,
            status=batch.status.value,
            lines=CountsBody(total=batch.total, completed=batch.completed, failed=batch.failed),
            prompt_tokens=batch.prompt_tokens,
            cached_tokens=batch.cached_tokens,
            output_tokens=batch.output_tokens,
            created_s=batch.created_s,
            expires_s=batch.expires_s,
            times_s={name: at_s for name, at_s in batch.times.items() if at_s is not None},
            errors=batch.errors,
            metadata=None if batch.metadata is None else dict(batch.metadata),
        )


def batch_routes(parts: Parts) -> APIRouter:
    """``/admin/v1/batches``, and a tenant's own."""
    routes = Routes("batches")
    table = BatchTable(parts.tenants.engine)

    @routes.get(
        "/admin/v1/batches",
        Role.ADMIN,
        response_model=Page[JobBody],
        summary="Batch jobs of all tenants, newest first",
    )
    async def list_batches(
        family: Family = _FAMILY, asked: Wanted = Depends(wanted)
    ) -> Page[JobBody]:
        return await _jobs(parts, table, None, family, asked)

    for face in (OPERATOR, TENANT):
        _add_reading(routes, parts, table, face)
        _add_cancelling(routes, parts, table, face)
    return routes.router


def _add_reading(routes: Routes, parts: Parts, table: BatchTable, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/batches",
        face.reads,
        response_model=Page[JobBody],
        summary="A tenant's batch jobs, newest first",
        name=f"{face.name}_list_batches",
    )
    async def list_own(
        tenant: str = Depends(face.subject),
        family: Family = _FAMILY,
        asked: Wanted = Depends(wanted),
    ) -> Page[JobBody]:
        await find_tenant(parts, tenant)
        return await _jobs(parts, table, tenant, family, asked)

    @routes.get(
        f"{face.prefix}/batches/{{batch}}",
        face.reads,
        response_model=JobBody,
        summary="A batch job",
        name=f"{face.name}_get_batch",
    )
    async def get_batch(batch: str = _ID, tenant: str = Depends(face.subject)) -> JobBody:
        return JobBody.of(await parts.store.in_thread(lambda: table.find(tenant, batch)))


def _add_cancelling(routes: Routes, parts: Parts, table: BatchTable, face: Face) -> None:
    # Whoever may ask models may make batch jobs, and end them.
    needs = Role.TENANT_USER if face is TENANT else face.manages

    @routes.post(
        f"{face.prefix}/batches/{{batch}}/cancel",
        needs,
        response_model=JobBody,
        summary="Cancel a batch job; what is computed is kept",
        name=f"{face.name}_cancel_batch",
    )
    async def cancel_batch(
        request: Request, batch: str = _ID, tenant: str = Depends(face.subject)
    ) -> Response:
        now_s, actor = parts.now_s(), principal_of(request).actor
        before = await parts.store.in_thread(lambda: table.find(tenant, batch))
        after = await parts.store.in_thread(lambda: table.cancel(tenant, batch, now_s))

        def note(connection: Connection) -> Made:
            append_audit(
                connection,
                now_s,
                actor,
                "batch.cancel",
                f"batch:{batch}",
                tenant_id=tenant,
                before={"status": before.status.value},
                after={"status": after.status.value},
            )
            return Made(JobBody.of(after))

        return await parts.changes.make(request, note)


async def _jobs(
    parts: Parts, table: BatchTable, tenant: str | None, family: Family, asked: Wanted
) -> Page[JobBody]:
    place = place_of(asked, str)
    after = str(place[0]) if place else None
    found, more = await parts.store.in_thread(
        lambda: table.page(tenant, after, asked.limit, family)
    )
    following = cursor((found[-1].id,)) if more and found else None
    return Page[JobBody](data=[JobBody.of(each) for each in found], has_more=more, next=following)
