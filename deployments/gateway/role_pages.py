"""``POST /weir/roles``: some of a model's replicas do something else for a while."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.gateway.callers import Callers
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.gateway.role_changes import Replicas, members_of
from router.disaggregation.roles import (
    Change,
    RoleRefusedError,
    check_change,
    plan_changes,
    plan_split,
)
from weir.errors import ConflictError, NotFoundError


class RoleBody(BaseModel):
    """``replica`` alone, or ``count`` of the replicas of ``pool`` (None: of all), shall have
    ``role`` for ``for_s`` seconds (None: until told otherwise). ``split``: so many only compute
    prompts, and all others only answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    pool: str | None = None
    replica: str | None = None
    count: int | None = Field(None, ge=0)
    split: int | None = Field(None, ge=1)
    role: Literal["mixed", "prefill", "decode"] | None = None
    for_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_them(self) -> RoleBody:
        given = [each for each in (self.replica, self.count, self.split) if each is not None]
        if len(given) != 1:
            raise ValueError("one of replica, count and split is given")
        if (self.role is None) != (self.split is not None):
            raise ValueError("role goes with replica or count, and not with split")
        return self


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
                await replicas.tell(model, change, asked.for_s)
        made = [{"replica_id": c.replica_id, "role": c.role} for c in changes]
        return {"model": model.name, "changes": made}


def _changes(model: Model, asked: RoleBody) -> list[Change]:
    now_s = asyncio.get_running_loop().time()
    members = members_of(model.router)
    among = [i.replica_id for i in model.router.members if asked.pool in (None, i.pool)]
    if not among:
        raise NotFoundError(f"There is no replica of {asked.model}:{asked.pool or ''} now.")
    if asked.split is not None:
        if asked.split >= len(among):
            raise RoleRefusedError(f"Of {len(among)} replicas at least one has to answer.")
        return plan_split(members, among, asked.split, now_s)
    assert asked.role is not None
    if asked.count is not None:
        return plan_changes(members, among, asked.role, asked.count, now_s)
    assert asked.replica is not None
    if asked.replica not in among:
        raise NotFoundError(f"There is no replica {asked.replica!r} there.")
    change = Change(asked.replica, asked.role)
    check_change(members, change, now_s)
    return [change]
