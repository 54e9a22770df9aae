"""Usage, cost and SLOs: sums from the ledger, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes
from deployments.control.tenants import find_tenant
from weir.errors import BadRequestError
from weir.ledger import slo
from weir.ledger.cells import cell
from weir.ledger.report import cost_report
from weir.ledger.usage import By, Period, parse_moment, usage
from weir.tenancy import Role

_MOST_ROWS = 10_000
_MOST_GROUPS = 4
_CSV = "text/csv; charset=utf-8"
_SINCE = Query(
    None,
    max_length=40,
    description="From then on: `2026-11-01`, `2026-11-01T12:00Z`, `7d` or `12h` ago (UTC).",
    examples=["7d"],
)
_UNTIL = Query(None, max_length=40, description="Up to then; left out: until now.")
_FORMAT = Query(None, description="`csv`, or `Accept: text/csv`, for a table.")
_TENANT = Query(None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")


class UsageRow(BaseModel):
    """What one group has used, as billed; `usd` is decimal text. It also has the value of each
    thing that it was summed by. `engine_*`: what engines counted, the platform's losses included.
    """

    model_config = ConfigDict(extra="allow")
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    images: int
    usd: str
    engine_prompt_tokens: int
    engine_cached_tokens: int
    engine_output_tokens: int


class UsageBody(BaseModel):
    """Sums of what was used, one for each group."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "list",
                    "by": ["day", "model"],
                    "data": [
                        {
                            "day": "2026-11-27",
                            "model": "weir-teacher",
                            "requests": 1204,
                            "prompt_tokens": 931772,
                            "cached_tokens": 402118,
                            "output_tokens": 88230,
                            "images": 0,
                            "usd": "0.059823100",
                            "engine_prompt_tokens": 931772,
                            "engine_cached_tokens": 402118,
                            "engine_output_tokens": 88230,
                        }
                    ],
                }
            ]
        }
    )
    object: Literal["list"] = "list"
    by: list[str]
    data: list[UsageRow]


class SloRowBody(BaseModel):
    """One group's answers: how many kept their class's limit for the first token. It also has the
    value of each thing that it was summed by."""

    model_config = ConfigDict(extra="allow")
    met: int
    missed: int
    attained: float | None
    mean_ttft_ms: float | None


class SloBody(BaseModel):
    """How often limits for the first token were kept."""

    object: Literal["list"] = "list"
    by: list[str]
    data: list[SloRowBody]


class CostRowBody(BaseModel):
    """What one group bears of the replicas' cost, and what it is billed."""

    group: str
    requests: int
    replica_hours: str
    cost_usd: str
    billed_usd: str


class CostPoolBody(BaseModel):
    """A pool's replicas: what was paid for them, and what of it was idle."""

    model: str
    pool: str
    replica_hours: str
    paid_usd: str
    idle_usd: str


class SavedBody(BaseModel):
    """What did not have to be paid."""

    cache_usd: str
    student_usd: str
    spot_usd: str


class CostBody(BaseModel):
    """Who bears what the replicas cost. `paid_usd` is the sum of the rows' `cost_usd` and of the
    pools' `idle_usd`, exactly. Amounts are decimal text."""

    object: Literal["cost_report"] = "cost_report"
    by: str
    paid_usd: str
    idle_usd: str
    billed_usd: str
    rows: list[CostRowBody]
    pools: list[CostPoolBody]
    saved: SavedBody


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows in the form that was asked for."""

    body: BaseModel
    rows: Sequence[dict[str, Any]]

    def answer(self, as_csv: bool) -> Response:
        if not as_csv:
            return JSONResponse(self.body.model_dump(mode="json"))
        out = io.StringIO()
        if self.rows:
            writer = csv.writer(out, lineterminator="\r\n")
            writer.writerow(list(self.rows[0]))
            writer.writerows([cell(each) for each in row.values()] for row in self.rows)
        headers = {"content-disposition": "attachment; filename=weir.csv"}
        return Response(out.getvalue(), headers=headers, media_type=_CSV)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all reports can be asked: of which period, and in which form."""

    period: Period
    as_csv: bool

    def answer(self, table: _Table) -> Response:
        """In that form."""
        return table.answer(self.as_csv)


def _asked(
    request: Request,
    since: str | None = _SINCE,
    until: str | None = _UNTIL,
    format: Literal["csv", "json"] | None = _FORMAT,
) -> _Asked:
    """A dependency of every report.

    Raises:
        BadRequestError: a moment cannot be read.
    """
    period = Period(_moment("since", since), _moment("until", until))
    return _Asked(period, _wants_csv(request, format))


_TABLE = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


def report_routes(parts: Parts) -> APIRouter:
    """``…/usage`` and ``…/slo`` for both; ``/admin/v1/cost`` for the operator."""
    routes = Routes("reports")
    _add_all(routes, parts)
    _add_cost(routes, parts)
    for face in (OPERATOR, TENANT):
        _add_usage(routes, parts, face)
        _add_slo(routes, parts, face)
    return routes.router


def _add_all(routes: Routes, parts: Parts) -> None:
    @routes.get(
        "/admin/v1/usage",
        Role.ADMIN,
        response_model=UsageBody,
        responses=_TABLE,
        summary="What was used, and what it is billed, of all tenants",
    )
    async def list_usage(
        by: str = _groups("tenant"),
        tenant: str | None = _TENANT,
        asked: _Asked = Depends(_asked),
    ) -> Response:
        return asked.answer(await _usage(parts, by, asked.period, tenant))

    @routes.get(
        "/admin/v1/slo",
        Role.ADMIN,
        response_model=SloBody,
        responses=_TABLE,
        summary="How often limits for the first token were kept, of all tenants",
    )
    async def list_slo(
        by: str = _slo_groups(),
        tenant: str | None = _TENANT,
        asked: _Asked = Depends(_asked),
    ) -> Response:
        return asked.answer(await _slo(parts, by, asked.period, tenant))


def _add_cost(routes: Routes, parts: Parts) -> None:
    @routes.get(
        "/admin/v1/cost",
        Role.ADMIN,
        response_model=CostBody,
        responses=_TABLE,
        summary="Who bears what the replicas cost, what was idle, what was saved",
    )
    async def get_cost(
        by: Literal["tenant", "model", "class", "key", "label", "day", "endpoint", "pool"] = (
            "tenant"
        ),
        tenant: str | None = _TENANT,
        asked: _Asked = Depends(_asked),
    ) -> Response:
        engine = parts.tenants.engine
        report = await parts.store.in_thread(lambda: cost_report(engine, by, asked.period, tenant))
        told = report.told()
        return asked.answer(_Table(CostBody(**told), told["rows"]))


def _add_usage(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/usage",
        face.reads,
        response_model=UsageBody,
        responses=_TABLE,
        summary="What a tenant has used, and what it is billed",
        name=f"{face.name}_list_usage",
    )
    async def list_own_usage(
        tenant: str = Depends(face.subject),
        by: str = _groups("day,model"),
        asked: _Asked = Depends(_asked),
    ) -> Response:
        await find_tenant(parts, tenant)
        return asked.answer(await _usage(parts, by, asked.period, tenant))


def _add_slo(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/slo",
        face.reads,
        response_model=SloBody,
        responses=_TABLE,
        summary="How often limits for a tenant's first tokens were kept",
        name=f"{face.name}_list_slo",
    )
    async def list_own_slo(
        tenant: str = Depends(face.subject),
        by: str = _slo_groups(),
        asked: _Asked = Depends(_asked),
    ) -> Response:
        await find_tenant(parts, tenant)
        return asked.answer(await _slo(parts, by, asked.period, tenant))


def _groups_of(by: str) -> list[str]:
    """Raises:
    BadRequestError: there are too many of them, or one twice.
    """
    names = [name.strip() for name in by.split(",") if name.strip()]
    if len(names) > _MOST_GROUPS or len(set(names)) < len(names):
        raise BadRequestError(
            f"by: at most {_MOST_GROUPS} names, each once, are expected.", param="by"
        )
    return names


async def _usage(parts: Parts, by: str, period: Period, tenant: str | None) -> _Table:
    groups, engine = cast("list[By]", _groups_of(by)), parts.tenants.engine
    found = await _bounded(
        parts, lambda: usage(engine, groups, period, tenant, limit=_MOST_ROWS + 1)
    )
    rows = [row.told(groups) for row in found]
    body = UsageBody(by=list(groups), data=[UsageRow(**row) for row in rows])
    return _Table(body, rows)


async def _slo(parts: Parts, by: str, period: Period, tenant: str | None) -> _Table:
    groups, engine = cast("list[slo.By]", _groups_of(by)), parts.tenants.engine
    found = await _bounded(
        parts, lambda: slo.slo_report(engine, groups, period, tenant, _MOST_ROWS + 1)
    )
    rows = [row.told(groups) for row in found]
    return _Table(SloBody(by=list(groups), data=[SloRowBody(**row) for row in rows]), rows)


async def _bounded(parts: Parts, run: Callable[[], list[Any]]) -> list[Any]:
    """Raises:
    BadRequestError: there are too many rows.
    """
    found = await parts.store.in_thread(run)
    if len(found) > _MOST_ROWS:
        raise BadRequestError(
            f"More than {_MOST_ROWS} rows: choose a shorter period, or fewer names in by.",
            param="by",
        )
    return found


def _groups(default: str) -> Any:
    return Query(
        default,
        max_length=100,
        description="What to sum by, up to four: tenant, model, class, key, label, day, hour, "
        "endpoint, asked, pool, spill.",
        examples=["day,model"],
    )


def _slo_groups() -> Any:
    return Query(
        "class",
        max_length=100,
        description="What to sum by, up to four: tenant, model, class, day, hour.",
        examples=["class,day"],
    )


def _moment(name: str, text: str | None) -> int | None:
    """Raises:
    BadRequestError: names the parameter.
    """
    if text is None:
        return None
    try:
        moment = parse_moment(text)
    except BadRequestError as error:
        raise BadRequestError(f"{name}: {error.message}", param=name) from None
    return min(max(moment, 0), 1 << 52)


def _wants_csv(request: Request, form: str | None) -> bool:
    if form is not None:
        return form == "csv"
    return request.headers.get("accept", "").strip().lower().startswith("text/csv")
