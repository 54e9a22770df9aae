"""The pages below ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from deployments.batches.files import FilePage, StoredFile
from deployments.batches.jobs import Batch
from deployments.batches.message_pages import add_message_batches
from deployments.batches.service import Asked, Batches
from deployments.gateway import http
from deployments.gateway.bodies.batches import BatchBody
from deployments.gateway.bodies.parsing import parse_body
from deployments.gateway.callers import EndpointCallers
from weir.errors import BadRequestError, RangeError

_BODY_BYTES = 64 * 1024
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; `param` names the field."},
    403: {"description": "The key is not for that, or the tenant keeps as much as it may."},
    408: {"description": "The upload stood still."},
    409: {"description": "It is in use, or has ended."},
    413: {"description": "The file, or the body, is too large."},
    415: {"description": "The body has another type."},
    429: {"description": "Too many uploads or batches are under way; see Retry-After."},
    503: {"description": "Database or storage cannot be reached now; see Retry-After."},
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it.", "content": {"application/octet-stream": {}}},
    206: {"description": "A part of it.", "content": {"application/octet-stream": {}}},
    416: {"description": "There is nothing in that range."},
}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"const": "batch"},
                        "expires_after[anchor]": {"const": "created_at"},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}
_CREATE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": BatchBody.model_json_schema()}},
    }
}


def add_batches(app: FastAPI, batches: Batches) -> None:
    """Files and batches."""
    callers = EndpointCallers(batches.gateway.directory)
    _add_files(app, batches, callers)
    _add_content(app, batches, callers)
    _add_jobs(app, batches, callers)
    add_message_batches(app, batches, callers, _REFUSALS)


def _add_files(app: FastAPI, batches: Batches, callers: EndpointCallers) -> None:
    known: dict[str, Any] = {"tags": ["openai"], "responses": _REFUSALS}

    @app.post("/v1/files", summary="Keep a file", openapi_extra=_UPLOAD, **known)
    async def upload_file(request: Request) -> dict[str, Any]:
        tenant = callers.writer(request, "files").tenant
        content_type = http.header(request.scope, b"content-type")
        announced = http.header(request.scope, b"content-length") or ""
        size = int(announced) if announced.isdigit() else None
        try:
            made = await batches.files.upload(tenant, content_type, size, request.stream())
        except ClientDisconnect:
            raise BadRequestError("The client left before the end of the file.") from None
        return made.shown()

    @app.get("/v1/files", summary="The files that are kept", **known)
    async def list_files(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
        purpose: str | None = None,
    ) -> dict[str, Any]:
        page = FilePage(after, limit, order == "desc", purpose)
        return _listed(*await batches.files.page(callers.reader(request, "files"), page))

    @app.get("/v1/files/{file_id}", summary="A file, without its content", **known)
    async def get_file(file_id: str, request: Request) -> dict[str, Any]:
        return (await batches.files.find(callers.reader(request, "files"), file_id)).shown()

    @app.delete("/v1/files/{file_id}", summary="Forget a file", **known)
    async def delete_file(file_id: str, request: Request) -> dict[str, Any]:
        await batches.files.delete(callers.writer(request, "files").tenant, file_id)
        return {"id": file_id, "object": "file", "deleted": True}


def _add_content(app: FastAPI, batches: Batches, callers: EndpointCallers) -> None:
    @app.get(
        "/v1/files/{file_id}/content",
        summary="A file's content, or a part of it",
        response_class=StreamingResponse,
        tags=["openai"],
        responses=_REFUSALS | _CONTENT,
    )
    async def get_content(file_id: str, request: Request) -> Response:
        file = await batches.files.find(callers.reader(request, "files"), file_id)
        asked = http.header(request.scope, b"range")
        start, end = byte_range(asked, file.bytes)
        headers = {
            "accept-ranges": "bytes",
            "content-length": str(end - start),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        }
        whole = (start, end) == (0, file.bytes)
        if not whole:
            headers["content-range"] = f"bytes {start}-{end - 1}/{file.bytes}"
        return StreamingResponse(
            batches.files.content(file, start, end),
            200 if whole else 206,
            headers,
            "application/octet-stream",
        )


def _add_jobs(app: FastAPI, batches: Batches, callers: EndpointCallers) -> None:
    known: dict[str, Any] = {"tags": ["openai"], "responses": _REFUSALS}

    @app.post("/v1/batches", summary="Begin a batch", openapi_extra=_CREATE, **known)
    async def create_batch(request: Request) -> Response:
        caller = callers.writer(request, "batches")
        raw = await http.read_json_body(request.scope, request.receive, _BODY_BYTES)
        unknown = batches.gateway.intake.unknown()
        body = parse_body(BatchBody, raw, unknown)
        kept = body.output_expires_after
        asked = Asked(
            body.endpoint,
            body.input_file_id,
            body.completion_window,
            body.metadata,
            float(kept.seconds) if kept is not None else None,
        )
        headers = {name.decode(): value.decode() for name, value in unknown.headers()}
        return JSONResponse((await batches.create(caller, asked)).shown(), 200, headers)

    @app.get("/v1/batches", summary="The tenant's batches", **known)
    async def list_batches(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        return _listed(*await batches.list(callers.reader(request, "batches"), after, limit))

    @app.get("/v1/batches/{batch_id}", summary="A batch as it stands", **known)
    async def get_batch(batch_id: str, request: Request) -> dict[str, Any]:
        return (await batches.batch(callers.reader(request, "batches"), batch_id)).shown()

    @app.post("/v1/batches/{batch_id}/cancel", summary="Stop a batch", **known)
    async def cancel_batch(batch_id: str, request: Request) -> dict[str, Any]:
        tenant = callers.writer(request, "batches").tenant
        batch = await batches.batch(tenant, batch_id)
        return (await batches.cancel(tenant, batch.id)).shown()


def byte_range(asked: str | None, size: int) -> tuple[int, int]:
    """What part of ``size`` bytes is asked for, as start and end. What is no range of bytes, or
    several, is answered with the whole, as RFC 9110 allows.

    Raises:
        RangeError: there is nothing in that range.
    """
    unit, _, told = (asked or "").partition("=")
    first, dash, last = told.strip().partition("-")
    numbers = all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last))
    if unit.strip().lower() != "bytes" or not dash or not numbers or not (first or last):
        return 0, size
    if len(first) > 18 or len(last) > 18:
        raise RangeError(f"Range: the file has {size} bytes.", param="Range")
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return 0, size
    if start >= end:
        raise RangeError(f"Range: the file has {size} bytes.", param="Range")
    return start, end


def _listed(shown: Sequence[StoredFile] | Sequence[Batch], more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [each.shown() for each in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": more,
    }
