"""Responses that are kept, by their id: read, cancelled, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request

from deployments.gateway.callers import EndpointCallers
from deployments.gateway.responses import Responses
from weir.errors import BadRequestError, NotFoundError

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; `param` names the field."},
    503: {"description": "What is kept cannot be reached now; see Retry-After."},
}


def add_responses(app: FastAPI, responses: Responses) -> None:
    """The pages below ``/v1/responses/``."""
    callers = EndpointCallers(responses.gateway.directory)
    _add_reading(app, responses, callers)
    _add_ending(app, responses, callers)


def _add_reading(app: FastAPI, responses: Responses, callers: EndpointCallers) -> None:
    @app.get(
        "/v1/responses/{response_id}",
        tags=["openai"],
        summary="A response that is kept",
        responses=_REFUSALS,
    )
    async def get_response(
        response_id: str, request: Request, stream: bool = False
    ) -> dict[str, Any]:
        tenant = callers.reader(request, "responses")
        if stream:
            raise BadRequestError("A kept response cannot be streamed; poll it.", param="stream")
        return (await responses.find(tenant, response_id)).response

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
        stored = await responses.find(callers.reader(request, "responses"), response_id)
        items = stored.items if order == "asc" else stored.items[::-1]
        return _page(items, limit, after)


def _add_ending(app: FastAPI, responses: Responses, callers: EndpointCallers) -> None:
    @app.delete(
        "/v1/responses/{response_id}",
        tags=["openai"],
        summary="Forget a response",
        responses=_REFUSALS,
    )
    async def delete_response(response_id: str, request: Request) -> dict[str, Any]:
        await responses.delete(callers.writer(request, "responses").tenant, response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @app.delete(
        "/v1/responses",
        tags=["openai"],
        summary="Forget all responses that are kept",
        responses=_REFUSALS,
    )
    async def forget_responses(request: Request) -> dict[str, Any]:
        return {
            "object": "list",
            "deleted": await responses.forget(callers.writer(request, "responses").tenant),
        }

    @app.post(
        "/v1/responses/{response_id}/cancel",
        tags=["openai"],
        summary="End a response that runs in the background",
        responses=_REFUSALS,
    )
    async def cancel_response(response_id: str, request: Request) -> dict[str, Any]:
        return await responses.cancel(callers.writer(request, "responses").tenant, response_id)


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
