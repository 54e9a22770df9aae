"""``POST /weir/roles``: some of a model's replicas do something else for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments import role_page, wire
from deployments.gateway.callers import Callers
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from router.disaggregation.roles import (
    Change,
    Member,
    RoleRefusedError,
    check_change,
    plan_changes,
)
from router.router import Router
from router.types import ReplicaInfo
from weir.errors import ConflictError, NotFoundError, OverloadedError

_ANSWER_S = 3.0
_LOOK_S = 0.02


class RoleBody(BaseModel):
    """``replica`` alone, or ``count`` of the replicas of ``pool`` (None: of all), shall have
    ``role`` for ``for_s`` seconds (None: until told otherwise)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    pool: str | None = None
    replica: str | None = None
    count: int | None = Field(None, ge=0)
    role: Literal["mixed", "prefill", "decode"]
    for_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> RoleBody:
        if (self.replica is None) == (self.count is None):
            raise ValueError("either replica or count is given")
        return self


@dataclass(frozen=True, slots=True)
class Replicas:
    """How replicas are reached: ``token`` is the platform's own."""

    session: aiohttp.ClientSession
    token: str


def add_roles(app: FastAPI, gateway: Gateway, callers: Callers, replicas: Replicas) -> None:
    """The page. Changes are made one after the other, so that none is judged by what was so
    before another."""
    one_at_a_time = asyncio.Lock()

    @app.post("/weir/roles", include_in_schema=False)
    async def change_roles(asked: RoleBody, request: Request) -> dict[str, Any]:
        callers.require_platform(request)
        model = gateway.models.get(asked.model)
        if model is None:
            raise NotFoundError(f"There is no model {asked.model!r}.")
        async with one_at_a_time:
            try:
                changes = _changes(model, asked)
            except RoleRefusedError as refused:
                raise ConflictError(str(refused)) from None
            for change in changes:
                await _tell(replicas, model, change, asked.for_s)
        made = [{"replica_id": c.replica_id, "role": c.role} for c in changes]
        return {"model": model.name, "changes": made}


def members_of(router: Router) -> list[Member]:
    """All replicas of a model, as the rules for changing roles see them."""
    return [
        Member(
            info.replica_id,
            info.role,
            info.pool_role,
            info.changes_role,
            router.role_changed_s(info.replica_id),
            router.own_load(info.replica_id).decode_tokens,
        )
        for info in router.members
    ]


def _changes(model: Model, asked: RoleBody) -> list[Change]:
    now_s = asyncio.get_running_loop().time()
    members = members_of(model.router)
    among = [i.replica_id for i in model.router.members if asked.pool in (None, i.pool)]
    if not among:
        raise NotFoundError(f"There is no replica of {asked.model}:{asked.pool or ''} now.")
    if asked.count is not None:
        return plan_changes(members, among, asked.role, asked.count, now_s)
    assert asked.replica is not None
    if asked.replica not in among:
        raise NotFoundError(f"There is no replica {asked.replica!r} there.")
    change = Change(asked.replica, asked.role)
    check_change(members, change, now_s)
    return [change]


async def _tell(replicas: Replicas, model: Model, change: Change, for_s: float | None) -> None:
    """Have a replica change, and wait until this gateway has heard of it from the replica."""
    info = _find(model.router.members, change.replica_id)
    params = {"role": change.role, **({} if for_s is None else {"for_s": str(for_s)})}
    try:
        async with asyncio.timeout(_ANSWER_S):
            async with replicas.session.post(
                f"http://{info.address}{role_page.PATH}",
                params=params,
                headers={wire.TOKEN_HEADER: replicas.token},
            ) as answer:
                told = await answer.json(content_type=None)
            if answer.status != 200:
                raise ConflictError(str(told.get("error", told)))
            while _find(model.router.members, info.replica_id).role != change.role:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        raise OverloadedError(f"Replica {info.replica_id} did not change: {reason}.") from None


def _find(members: Iterable[ReplicaInfo], replica_id: str) -> ReplicaInfo:
    found = next((info for info in members if info.replica_id == replica_id), None)
    if found is None:
        raise OverloadedError(f"Replica {replica_id} has left.")
    return found
