"""Rollouts of candidate versions: the operator's alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from deployments.control.changes import Made
from deployments.control.parts import Parts
from deployments.control.routing import Routes, principal_of
from weir.rollouts.checking import check_candidate
from weir.rollouts.course import Rollout
from weir.rollouts.store import RolloutStore
from weir.settings.rollout import RolloutSettings
from weir.tenancy import Role

_ALL = "/admin/v1/rollouts"
_MODEL = Path(
    description="The name of the model in whose place a candidate is tried.",
    examples=["weir-teacher"],
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$",
)
_Change = Callable[[RolloutStore, str, str], Rollout]


class FindingBody(BaseModel):
    """One criterion. ``observed`` beside ``allowed``: a share of pairs, or a difference of shares;
    the evidence, as e-values, that the candidate is on the wrong and on the right side of it."""

    criterion: str
    samples: int
    observed: float | None
    allowed: float
    evidence_bad: float
    evidence_good: float
    bad: bool
    good: bool


class RolloutBody(BaseModel):
    """A rollout. ``share``: the share of conversations that the candidate answers now."""

    object: Literal["rollout"] = "rollout"
    id: str
    model: str
    candidate: str
    state: str
    reason: str
    share: float
    mirror: float
    step: int
    started_s: float
    stepped_s: float
    ended_s: float | None
    closed: bool
    settings: RolloutSettings
    findings: list[FindingBody]


class RolloutsBody(BaseModel):
    """All that run, and the last that have ended, the newest first."""

    object: Literal["list"] = "list"
    data: list[RolloutBody]


class NewRolloutBody(BaseModel):
    """What is to be tried. ``candidate`` is the name of another model of the settings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "support",
                    "candidate": "support-next",
                    "settings": {"steps": [0.05, 0.5], "judge": {"ttft_ratio": 1.05}},
                }
            ]
        },
    )
    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    candidate: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    settings: RolloutSettings = Field(default_factory=RolloutSettings)


def rollout_routes(parts: Parts) -> APIRouter:
    """``/admin/v1/rollouts``."""
    routes = Routes("rollouts")
    _add_reading(routes, parts)
    _add_starting(routes, parts)
    for verb, summary, change in _CHANGES:
        _add_change(routes, parts, verb, summary, change)
    return routes.router


def _add_reading(routes: Routes, parts: Parts) -> None:
    store = RolloutStore(parts.tenants.engine, parts.now_s)

    @routes.get(
        _ALL, Role.ADMIN, response_model=RolloutsBody, summary="Rollouts, with what was found"
    )
    async def list_rollouts() -> RolloutsBody:
        def read() -> RolloutsBody:
            findings = store.findings()
            return RolloutsBody(data=[_body(each, findings) for each in store.rollouts()])

        return await parts.store.in_thread(read)


def _add_starting(routes: Routes, parts: Parts) -> None:
    @routes.post(
        _ALL,
        Role.ADMIN,
        response_model=RolloutBody,
        status_code=201,
        summary="Try a candidate in the place of a model",
    )
    async def start_rollout(request: Request, body: NewRolloutBody) -> Response:
        check_candidate(parts.settings, body.model, body.candidate, body.settings.judge)
        actor = principal_of(request).actor

        def start(connection: Connection) -> Made:
            store = _store(parts).within(connection)
            made = store.start(actor, body.model, body.candidate, body.settings)
            return Made(_body(made, {}), 201)

        return await parts.changes.make(request, start)


def _add_change(routes: Routes, parts: Parts, verb: str, summary: str, change: _Change) -> None:
    @routes.post(
        f"{_ALL}/{{model:path}}/{verb}",
        Role.ADMIN,
        response_model=RolloutBody,
        summary=summary,
        name=f"{verb}_rollout",
    )
    async def change_rollout(request: Request, model: str = _MODEL) -> Response:
        actor = principal_of(request).actor

        def make(connection: Connection) -> Made:
            return Made(_body(change(_store(parts).within(connection), actor, model), {}))

        return await parts.changes.make(request, make)


_CHANGES: tuple[tuple[str, str, _Change], ...] = (
    (
        "promote",
        "The candidate answers everything from now on",
        lambda store, actor, model: store.end(actor, model, "promoted", "by hand"),
    ),
    (
        "abort",
        "The model answers everything itself again",
        lambda store, actor, model: store.end(actor, model, "aborted", "by hand"),
    ),
    (
        "hold",
        "The candidate's share stays as it is",
        lambda store, actor, model: store.hold(actor, model, True),
    ),
    (
        "resume",
        "A rollout that was held goes on",
        lambda store, actor, model: store.hold(actor, model, False),
    ),
    (
        "close",
        "After a promotion: the model's settings name the new version now",
        lambda store, actor, model: store.close(actor, model),
    ),
)


def _store(parts: Parts) -> RolloutStore:
    return RolloutStore(parts.tenants.engine, parts.now_s)


def _body(rollout: Rollout, findings: dict[str, Any]) -> RolloutBody:
    found = findings.get(rollout.id, {}).get("criteria", [])
    told = {name: value for name, value in asdict(rollout).items() if name != "settings"}
    return RolloutBody(
        **told,
        settings=rollout.settings,
        share=rollout.share,
        mirror=rollout.mirror,
        findings=found,
    )
