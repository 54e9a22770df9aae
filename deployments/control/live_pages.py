"""This moment, for ``/dashboard`` and whoever else wants it as JSON; and one request's legs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

from fastapi import APIRouter, Depends, Path

from deployments.control.asking import RedisAway
from deployments.control.balances import Balances
from deployments.control.boards import Boards
from deployments.control.followed import followed_in_ledger
from deployments.control.live_bodies import (
    BudgetNowBody,
    FollowedListBody,
    LiveBody,
    QuotaBody,
    TenantNowBody,
)
from deployments.control.live_view import (
    WINDOW_S,
    Picture,
    classes_of,
    followed_body,
    queues_of,
    recent_of,
    replicas_of,
    series_of,
    spills_of,
    total_of,
)
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes
from deployments.control.tenants import find_tenant
from deployments.live import Board, Sums
from weir.accounts import ScopeUse, Standing
from weir.cost import usd_of
from weir.errors import NotFoundError
from weir.ledger.rates import rates_of
from weir.metrics import OTHER_TENANTS
from weir.settings.tenants import QuotaSettings, TenantFields
from weir.tenancy import Role

#: Of so many tenants, the most active ones, it is told what is left of quotas and budget.
_STANDINGS = 50
_REQUEST = Path(
    description="The request's id (`x-request-id`), or its serial.",
    examples=["r-20261127"],
    pattern=r"^[\x21-\x7e]{1,128}$",
)


def live_routes(parts: Parts, boards: Boards, balances: Balances) -> APIRouter:
    """``…/live`` and ``…/requests/{request}``, for both."""
    routes, told = Routes("live"), _Telling(parts, balances)

    @routes.get(
        "/admin/v1/live",
        Role.ADMIN,
        response_model=LiveBody,
        summary="This moment: SLOs, cost, tenants, replicas, queues, recent decisions",
    )
    async def get_live() -> LiveBody:
        return await told.live(await boards.read(), None)

    @routes.get(
        "/admin/v1/requests/{request}",
        Role.ADMIN,
        response_model=FollowedListBody,
        summary="One request through its legs, whoever's it is",
    )
    async def follow_request(request: str = _REQUEST) -> FollowedListBody:
        return await told.followed(await _known(boards), request, None, operator=True)

    for face in (OPERATOR, TENANT):
        _add_own(routes, told, boards, face)
    return routes.router


def _add_own(routes: Routes, told: _Telling, boards: Boards, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/live",
        face.reads,
        response_model=LiveBody,
        summary="This moment, as far as it is the tenant's",
        name=f"{face.name}_get_tenant_live",
    )
    async def get_own_live(tenant: str = Depends(face.subject)) -> LiveBody:
        await told.require(tenant)
        return await told.live(await boards.read(), tenant)

    @routes.get(
        f"{face.prefix}/requests/{{request}}",
        face.reads,
        response_model=FollowedListBody,
        summary="One request of a tenant through its legs",
        name=f"{face.name}_follow_request",
    )
    async def follow_own(
        request: str = _REQUEST, tenant: str = Depends(face.subject)
    ) -> FollowedListBody:
        await told.require(tenant)
        known = await _known(boards)
        return await told.followed(known, request, tenant, operator=face is OPERATOR)


async def _known(boards: Boards) -> Sequence[Board]:
    """Nothing while Redis is away: the ledger may know."""
    try:
        return await boards.read()
    except RedisAway:
        return ()


class _Telling:
    def __init__(self, parts: Parts, balances: Balances) -> None:
        self._parts = parts
        self._balances = balances
        self._rates = rates_of(parts.settings)

    async def require(self, tenant: str) -> None:
        """Raises:
        NotFoundError: there is no such tenant.
        """
        await find_tenant(self._parts, tenant)

    async def live(self, boards: Sequence[Board], tenant: str | None) -> LiveBody:
        now_s, operator = self._parts.now_s(), tenant is None
        picture = Picture(boards, int(now_s * 1000), tenant)
        whole, flying = total_of(picture), picture.in_flight()
        replicas = replicas_of(picture, self._rates) if operator else None
        paid = sum(Decimal(each.usd_per_hour or 0) for each in replicas or ())
        return LiveBody(
            tenant=tenant,
            at_s=round(now_s, 3),
            window_s=WINDOW_S,
            gateways=len(boards),
            in_flight=flying.total(),
            requests=whole.requests,
            failed=whole.failed,
            refused=whole.refused,
            prompt_tokens=whole.prompt_tokens,
            cached_tokens=whole.cached_tokens,
            output_tokens=whole.output_tokens,
            usd=f"{usd_of(whole.nano_usd):f}",
            moved=whole.moved,
            paid_usd_per_hour=f"{paid:f}" if operator and paid else None,
            classes=classes_of(picture, self._parts.settings.admission),
            series=series_of(picture),
            tenants=await self._tenants(picture),
            replicas=replicas,
            queues=queues_of(picture) if operator else None,
            spills=spills_of(picture),
            recent=recent_of(picture),
        )

    async def followed(
        self, boards: Sequence[Board], request: str, tenant: str | None, *, operator: bool
    ) -> FollowedListBody:
        picture = Picture(boards, int(self._parts.now_s() * 1000), tenant)
        found = [followed_body(each, operator) for each in picture.followed(request)]
        if not found:
            engine, now_ms = self._parts.tenants.engine, picture.now_ms
            found = await self._parts.store.in_thread(
                lambda: followed_in_ledger(engine, request, tenant, now_ms)
            )
        if not found:
            raise NotFoundError(
                "There is no such request among the last ones, nor in the ledger's last hour.",
                param="request",
            )
        return FollowedListBody(data=found)

    async def _tenants(self, picture: Picture) -> list[TenantNowBody]:
        """The busiest first."""
        sums, flying = picture.sums(lambda row: row.tenant), picture.in_flight()
        named = {picture.tenant} if picture.tenant is not None else sums.keys() | flying.keys()
        order = sorted(
            named - {OTHER_TENANTS},
            key=lambda each: (-sums.get(each, Sums()).requests, -flying[each], each),
        )
        known = [each for each in order if each][:_STANDINGS]
        standings = dict(zip(known, await asyncio.gather(*map(self._limits, known)), strict=True))
        nothing: _Limits = (None, None)
        return [
            _tenant(each, sums.get(each, Sums()), flying[each], standings.get(each, nothing))
            for each in order
        ]

    async def _limits(self, tenant: str) -> _Limits:
        try:
            fields = await find_tenant(self._parts, tenant)
            if fields.budget is None and not _has_quotas(fields):
                return [], None
            standing = await self._balances.standing(tenant)
        except (NotFoundError, RedisAway):
            return None, None
        return _quotas(fields, standing), _budget(fields, standing)


_Limits = tuple[list[QuotaBody] | None, BudgetNowBody | None]


def _tenant(tenant: str, sums: Sums, in_flight: int, limits: _Limits) -> TenantNowBody:
    quotas, budget = limits
    return TenantNowBody(
        tenant=tenant,
        in_flight=in_flight,
        requests=sums.requests,
        failed=sums.failed,
        refused=sums.refused,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        output_tokens=sums.output_tokens,
        usd=f"{usd_of(sums.nano_usd):f}",
        ttft_met=sums.ttft_met,
        ttft_missed=sums.ttft_missed,
        moved=sums.moved,
        spilled=sum(sums.spills.values()),
        quotas=quotas,
        budget=budget,
    )


def _has_quotas(fields: TenantFields) -> bool:
    none = QuotaSettings()
    return fields.quotas != none or any(q != none for q in fields.model_quotas.values())


def _quotas(fields: TenantFields, standing: Standing) -> list[QuotaBody]:
    scopes: list[tuple[str | None, str, QuotaSettings]] = [(None, "t", fields.quotas)]
    scopes += [(model, f"m:{model}", quotas) for model, quotas in fields.model_quotas.items()]
    found = []
    for model, scope, quotas in scopes:
        used = _used(standing.scopes.get(scope, ScopeUse()))
        found += [
            QuotaBody(model=model, quota=name, limit=limit, used=used[name])
            for name, limit in quotas.model_dump().items()
            if limit is not None
        ]
    return found


def _used(scope: ScopeUse) -> dict[str, int]:
    kinds = ("requests", "prompt_tokens", "output_tokens")
    minutely = {f"{kind}_per_minute": n for kind, n in zip(kinds, scope.minutely, strict=True)}
    daily = {f"{kind}_per_day": n for kind, n in zip(kinds, scope.daily, strict=True)}
    return {**minutely, **daily, "concurrent_requests": scope.concurrent}


def _budget(fields: TenantFields, standing: Standing) -> BudgetNowBody | None:
    if fields.budget is None:
        return None
    limit, spent = fields.budget.usd_per_month, usd_of(standing.spent_nano_usd)
    return BudgetNowBody(
        usd_per_month=f"{limit:f}",
        spent_usd=f"{spent:f}",
        left_usd=f"{max(Decimal(0), limit - spent):f}",
    )
