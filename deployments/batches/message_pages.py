"""The pages below ``/v1/messages/batches``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from deployments.batches.message_batches import FAMILY, create, outputs, results, shown
from deployments.batches.service import Batches
from deployments.gateway.callers import EndpointCallers
from deployments.gateway.request import HttpDoor
from weir.errors import BadRequestError, ConflictError

#: The whole batch is in one body; what is larger is uploaded as a file.
_BODY_BYTES = 32 * 1024 * 1024
_LINES = "application/x-jsonl"
_PATH = "/v1/messages/batches"
_Refusals = dict[int | str, dict[str, Any]]
_CREATE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["requests"],
                    "properties": {
                        "requests": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["custom_id", "params"],
                                "properties": {
                                    "custom_id": {"type": "string"},
                                    "params": {"type": "object"},
                                },
                            },
                        }
                    },
                }
            }
        },
    }
}


def add_message_batches(
    app: FastAPI,
    batches: Batches,
    callers: EndpointCallers,
    refusals: _Refusals,
) -> None:
    """Anthropic's batches. ``refusals`` describes the errors."""
    _add_all(app, batches, callers, refusals)
    _add_one(app, batches, callers, refusals)
    _add_results(app, batches, callers, refusals)


def _add_all(app: FastAPI, batches: Batches, callers: EndpointCallers, refusals: _Refusals) -> None:
    known: dict[str, Any] = {"tags": ["anthropic"], "responses": refusals}

    @app.post(_PATH, summary="Begin a batch", openapi_extra=_CREATE, **known)
    async def create_batch(request: Request) -> dict[str, Any]:
        caller = callers.writer(request, "batches")
        door, intake = HttpDoor(request.scope, request.receive), batches.gateway.intake
        async with intake.received(caller.tenant.id, door, _BODY_BYTES) as raw:
            return shown(await create(batches, caller, raw))

    @app.get(_PATH, summary="The tenant's batches", **known)
    async def list_batches(
        request: Request,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> dict[str, Any]:
        if before_id is not None:
            raise BadRequestError("before_id: page with after_id.", param="before_id")
        tenant = callers.reader(request, "batches")
        listed, more = await batches.list(tenant, after_id, limit, FAMILY)
        return {
            "data": [shown(batch) for batch in listed],
            "has_more": more,
            "first_id": listed[0].id if listed else None,
            "last_id": listed[-1].id if listed else None,
        }


def _add_one(app: FastAPI, batches: Batches, callers: EndpointCallers, refusals: _Refusals) -> None:
    known: dict[str, Any] = {"tags": ["anthropic"], "responses": refusals}
    path = _PATH + "/{batch_id}"

    @app.get(path, summary="A batch as it stands", **known)
    async def get_batch(batch_id: str, request: Request) -> dict[str, Any]:
        return shown(await batches.batch(callers.reader(request, "batches"), batch_id, FAMILY))

    @app.post(f"{path}/cancel", summary="Stop a batch", **known)
    async def cancel_batch(batch_id: str, request: Request) -> dict[str, Any]:
        tenant = callers.writer(request, "batches").tenant
        batch = await batches.batch(tenant, batch_id, FAMILY)
        try:
            batch = await batches.cancel(tenant, batch_id)
        except ConflictError:
            batch = await batches.batch(tenant, batch_id, FAMILY)
        return shown(batch)

    @app.delete(path, summary="Forget a batch and its results", **known)
    async def delete_batch(batch_id: str, request: Request) -> dict[str, Any]:
        tenant = callers.writer(request, "batches").tenant
        await batches.delete(tenant, await batches.batch(tenant, batch_id, FAMILY))
        return {"id": batch_id, "type": "message_batch_deleted"}


def _add_results(
    app: FastAPI, batches: Batches, callers: EndpointCallers, refusals: _Refusals
) -> None:
    @app.get(
        _PATH + "/{batch_id}/results",
        summary="The results, a line each",
        response_class=StreamingResponse,
        tags=["anthropic"],
        responses=refusals | {200: {"description": "Lines.", "content": {_LINES: {}}}},
    )
    async def get_results(batch_id: str, request: Request) -> StreamingResponse:
        tenant = callers.reader(request, "batches")
        batch = await outputs(batches, tenant, batch_id)
        return StreamingResponse(results(batches, tenant, batch), media_type=_LINES)
