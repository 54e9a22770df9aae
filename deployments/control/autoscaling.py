"""What the autoscaler decided and why: read only, the newest first."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from deployments.control.paging import Page, Wanted, page, place_of, wanted
from deployments.control.parts import Parts
from deployments.control.routing import Routes
from weir.autoscaling.keeping import Kept, find, of_each_model, plain
from weir.errors import NotFoundError
from weir.ledger.usage import parse_moment
from weir.tenancy import Role

_MODEL = Query(None, max_length=255, description="Of this model only.")
_AT = Query(
    None,
    max_length=40,
    description="The decision in force then: `2026-11-28T10:15Z`, or `15m` or `2h` ago (UTC).",
    examples=["15m"],
)


class AlternativeBody(BaseModel):
    """Something that was weighed and not taken."""

    targets: dict[str, int]
    usd_per_hour: float
    verdict: str


class ExplanationBody(BaseModel):
    """`seen`: the figures that decided; `because`: one sentence."""

    seen: dict[str, float]
    because: str
    alternatives: list[AlternativeBody]


class DecisionBody(BaseModel):
    """One decision for one model. `targets`: replicas by pool; `state`: demand by class and pools,
    as the policy saw them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "autoscaling.decision",
                    "number": 1204,
                    "at_s": 1795830727.6,
                    "model": "weir-teacher",
                    "policy": "weir",
                    "changed": True,
                    "targets": {"weir-teacher": 3},
                    "targets_before": {"weir-teacher": 1},
                    "usd_per_hour": 3.6,
                    "spill_share": 0.0,
                    "explanation": {
                        "seen": {"computed_tokens_per_s": 1840.0},
                        "because": "the cheapest replicas that do the work",
                        "alternatives": [],
                    },
                    "state": {"name": "weir-teacher", "classes": {}, "pools": []},
                }
            ]
        }
    )
    object: Literal["autoscaling.decision"] = "autoscaling.decision"
    number: int
    at_s: float
    model: str
    policy: str
    changed: bool
    targets: dict[str, int]
    targets_before: dict[str, int]
    usd_per_hour: float
    spill_share: float
    explanation: ExplanationBody
    state: dict[str, Any]

    @classmethod
    def of(cls, kept: Kept) -> DecisionBody:
        """As it is kept."""
        return cls.model_validate(plain(kept))


class StatusBody(BaseModel):
    """The last decision of each model that scales."""

    object: Literal["list"] = "list"
    data: list[DecisionBody]


def autoscaling_routes(parts: Parts) -> APIRouter:
    """``/admin/v1/autoscaling``."""
    routes = Routes("autoscaling")

    @routes.get(
        "/admin/v1/autoscaling/status",
        Role.ADMIN,
        response_model=StatusBody,
        summary="The last decision for each model",
    )
    async def autoscaling_status() -> StatusBody:
        at_s = parts.now_s() + 60.0
        found = await parts.store.read(lambda connection: of_each_model(connection, at_s))
        return StatusBody(data=[DecisionBody.of(kept) for kept in found])

    @routes.get(
        "/admin/v1/autoscaling/explain",
        Role.ADMIN,
        response_model=DecisionBody,
        summary="The decision for a model that was in force at a time, and why",
    )
    async def autoscaling_explain(
        model: str = Query(max_length=255, description="The model."), at: str | None = _AT
    ) -> DecisionBody:
        at_s = parts.now_s() + 60.0 if at is None else parse_moment(at) / 1000
        found = await parts.store.read(
            lambda connection: find(connection, model, before_s=at_s, most=1)
        )
        if not found:
            raise NotFoundError(f"Nothing was decided for {model[:100]!r} until then.")
        return DecisionBody.of(found[0])

    @routes.get(
        "/admin/v1/autoscaling/decisions",
        Role.ADMIN,
        response_model=Page[DecisionBody],
        summary="Decisions that are kept, newest first",
    )
    async def autoscaling_decisions(
        model: str | None = _MODEL,
        changed: bool | None = Query(None, description="Only those that changed a number."),
        asked: Wanted = Depends(wanted),
    ) -> Page[DecisionBody]:
        place = place_of(asked, int)
        below = int(place[0]) if place else None
        found = await parts.store.read(
            lambda connection: find(
                connection, model, changed=changed, below=below, most=asked.limit + 1
            )
        )
        return page([DecisionBody.of(k) for k in found], asked, lambda each: (each.number,))

    return routes.router
