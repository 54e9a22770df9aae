"""``GET /weir/traces``: the traces that this gateway has kept lately, for ``weir trace``."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request

from deployments.gateway.callers import Callers
from deployments.gateway.tracing.spans import KeptTrace, Span
from deployments.gateway.tracing.tracer import Tracer


def add_traces(app: FastAPI, tracer: Tracer, callers: Callers, gateways: int) -> None:
    """The page. It may have prompts, and what other tenants do: for the platform's token alone.
    ``gateways``: so many share the requests, each with traces of its own."""

    @app.get("/weir/traces", include_in_schema=False)
    async def traces(
        request: Request,
        id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> dict[str, Any]:
        """Of a request or a trace with that id, or the newest."""
        callers.require_platform(request)
        found = tracer.recent.newest(limit) if id is None else tracer.recent.find(id)[:limit]
        told = [_summary(trace) if id is None else describe(trace) for trace in found]
        return {"gateways": gateways, "traces": told}


def describe(trace: KeptTrace) -> dict[str, Any]:
    """The trace with its spans; their ``start_ms`` counts from the beginning of the request."""
    begun_s = trace.spans[0].start_s
    return {**_summary(trace), "spans": [_span(span, begun_s) for span in trace.spans]}


def _summary(trace: KeptTrace) -> dict[str, Any]:
    root = trace.spans[0]
    began = dt.datetime.fromtimestamp(root.start_s + trace.ahead_s, dt.UTC)
    return {
        "trace_id": trace.trace_id,
        "request_id": trace.request_id,
        "tenant": trace.tenant,
        "kept": trace.kept,
        "name": root.name,
        "began": began.isoformat(timespec="milliseconds"),
        "duration_ms": _ms(root.end_s - root.start_s),
        "error": root.error,
    }


def _span(span: Span, begun_s: float) -> dict[str, Any]:
    return {
        "name": span.name,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "start_ms": _ms(span.start_s - begun_s),
        "duration_ms": _ms(span.end_s - span.start_s),
        "attributes": dict(span.attributes),
        "error": span.error,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
