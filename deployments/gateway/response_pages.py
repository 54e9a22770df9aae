"""Responses that are kept, by their id: read, cancelled, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request

from deployments.gateway.callers import caller_of
from deployments.gateway.responses import Responses
from weir.errors import BadRequestError, NotFoundError
from weir.tenancy import Tenant

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; `param` names the field."},
    503: {"description": "What is kept cannot be reached now; see Retry-After."},
}


def add_responses(app: FastAPI, responses: Responses) -> None:
    """The pages below ``/v1/responses/``."""

    directory = responses.gateway.directory

    def reader(request: Request) -> Tenant:
        caller = caller_of(directory, request)
        caller.require_endpoint("responses", asks=False)
        return caller.tenant

    def writer(request: Request) -> Tenant:
        caller = caller_of(directory, request)
        caller.require_endpoint("responses")
        return caller.tenant

    @app.get(
        "/v1/responses/{response_id}",
        tags=["openai"],
        summary="A response that is kept",
        responses=_REFUSALS,
    )
    async def get_response(
        response_id: str, request: Request, stream: bool = False
    ) -> dict[str, Any]:
        tenant = reader(request)
        if stream:
            raise BadRequestError("A kept response cannot be streamed; poll it.", param="stream")
        return (await responses.find(tenant, response_id)).response

    @app.delete(
        "/v1/responses/{response_id}",
        tags=["openai"],
        summary="Forget a response",
        responses=_REFUSALS,
    )
    async def delete_response(response_id: str, request: Request) -> dict[str, Any]:
        await responses.delete(writer(request), response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @app.delete(
        "/v1/responses",
        tags=["openai"],
        summary="Forget all responses that are kept",
        responses=_REFUSALS,
    )
    async def forget_responses(request: Request) -> dict[str, Any]:
        return {"object": "list", "deleted": await responses.forget(writer(request))}

    @app.post(
        "/v1/responses/{response_id}/cancel",
        tags=["openai"],
        summary="End a response that runs in the background",
        responses=_REFUSALS,
    )
    async def cancel_response(response_id: str, request: Request) -> dict[str, Any]:
        return await responses.cancel(writer(request), response_id)

    @app.get(
        "/v1/responses/{response_id}/input_items",
        tags=["openai"],
        summary="The items that a response was generated from",
        responses=_REFUSALS,
    )
    async def list_input_items(
        response_id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> dict[str, Any]:
        stored = await responses.find(reader(request), response_id)
        items = stored.items if order == "asc" else stored.items[::-1]
        return _page(items, limit, after)


def _page(items: list[dict[str, Any]], limit: int, after: str | None) -> dict[str, Any]:
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise NotFoundError(f"There is no item {after[:80]!r}.", param="after")
        items = items[places[0] + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }
